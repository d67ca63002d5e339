// The page: the form makes requests, lanes show their steps, the player keeps time.

import { Refused, file, models, score, stream } from "./api.js";
import { Form } from "./form.js";
import { forget, link, linked, remember, remembered } from "./history.js";
import { Lane } from "./lane.js";
import { Player } from "./player.js";

const ALTERNATIVES = 5;
const DRAWS = 8; // of bits per character: a second or so on a small model
const $ = (id) => document.getElementById(id);

let form;
let lanes = [];
let chosen = null; // the lane that the buttons act on
let pointed = null; // {lane, position} whose alternatives are shown
let abort = null; // of what is being written
let rating = null; // of what is being measured

const player = new Player(() => showToken());

function say(text) {
  $("said").textContent = text;
}

function problem(error) {
  if (error.name === "AbortError") return;
  $("problem").textContent = error instanceof Refused ? error.message : `Something went wrong: ${error.message}`;
  if (!(error instanceof Refused)) console.error(error);
}

/** Sends requests, one lane for each, and shows what comes back. `before`: the lane of which tokens are written again. */
async function write(requests, before = null) {
  abort?.abort();
  rating?.abort();
  rating = null;
  const mine = (abort = new AbortController());
  $("problem").textContent = "";
  say("");
  $("go").disabled = true;
  $("stop").hidden = false;
  lanes = requests.map((request) => {
    const run = form.runs.find((each) => each.id === request.body.model) || { id: request.body.model };
    const facts = { ...run, isRevision: request.path === "v1/revise" };
    const lane = new Lane(titleOf(request, requests), facts, point, choose, before);
    lane.request = request;
    return lane;
  });
  chosen = lanes[0];
  pointed = null;
  buttons();
  $("lanes").replaceChildren(...lanes.map((lane) => lane.root));
  player.watch(lanes);
  try {
    await Promise.all(lanes.map((lane) => fill(lane, mine.signal)));
    player.grown();
    finished(requests);
    rating = new AbortController();
    for (const lane of lanes) rate(lane, rating.signal);
  } catch (error) {
    mine.abort();
    if (mine === abort) problem(error);
  } finally {
    if (mine === abort) {
      abort = null;
      $("go").disabled = false;
      $("stop").hidden = true;
    }
  }
}

async function fill(lane, signal) {
  const body = { ...lane.request.body, num: 1, alternatives: ALTERNATIVES };
  const done = await stream(
    lane.request.path,
    body,
    (step) => {
      lane.add(step);
      player.grown();
    },
    signal,
  );
  lane.finish(done);
}

/** Measures bits per character, which takes longer than writing. */
async function rate(lane, signal) {
  const { model, label, source } = lane.request.body;
  const text = lane.plain;
  try {
    lane.rate(text ? await score({ model, texts: [text], label, source, draws: DRAWS }, signal) : null);
  } catch {
    lane.rate(null);
  }
}

function finished(requests) {
  remember({ text: lanes.map((lane) => lane.plain.trim()).join(" | ").slice(0, 300), requests });
  showHistory();
  buttons();
  $("finished").textContent = lanes.map((lane) => `${lanes.length > 1 ? `${lane.title}: ` : "Finished: "}${lane.plain}`).join(" ");
  if (!pointed && chosen.leastSure >= 0) point(chosen, chosen.leastSure);
}

function titleOf({ body }, requests) {
  const parts = [body.model, body.sampler?.kind, body.steps && `${body.steps} steps`];
  if (requests.length > 1 && requests[0].body.temperature !== requests[1].body.temperature) parts.push(`temperature ${body.temperature}`);
  return parts.filter(Boolean).join(", ");
}

function point(lane, position) {
  pointed = { lane, position };
  showToken();
}

function showToken() {
  if (!pointed?.lane.drawn) return;
  $("token").replaceChildren(...pointed.lane.considered(pointed.position));
}

function choose(lane) {
  chosen = lane;
  for (const other of lanes) if (other !== lane && (other.marks.size || other.pins.size)) other.clearMarks();
  chosen = lane;
  buttons();
}

function buttons() {
  const isDone = Boolean(chosen?.isFinished);
  const [marks, pins] = [chosen?.marks, chosen?.pins].map((set) => set?.size ?? 0);
  $("again").disabled = !isDone || !marks;
  $("again").textContent = marks ? `Write ${marks} marked ${marks > 1 ? "tokens" : "token"} again` : "Write marked tokens again";
  $("rest").disabled = !isDone || !pins;
  $("unmark").disabled = !marks && !pins;
  for (const id of ["revise", "copy", "save-html", "save-gif", "link"]) $(id).disabled = !isDone;
}

/** Writes some positions of the finished text again, with the next seed. */
function writeAgain(isFree) {
  const tokens = chosen.frames.at(-1).tokens;
  const remask = tokens.map((_, i) => i).filter(isFree);
  const asked = chosen.result.request;
  const body = { ...asked, seed: (asked.seed + 1) % 2 ** 32, tokens: tokens.map((each) => each.id), remask };
  for (const name of ["text", "strength", "select", "keep", "steps"]) delete body[name];
  if (!body.prompt) delete body.length; // it follows from the tokens
  write([{ path: "v1/stream", body }], chosen);
}

async function save(kind) {
  try {
    const blob = await file(kind, chosen.recording());
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = `textdiffusion.${kind}`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
    say(`Saved as textdiffusion.${kind}.`);
  } catch (error) {
    problem(error);
  }
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied.`);
  } catch {
    say(`The browser does not allow copying; here it is: ${text}`);
  }
}

function reproducing() {
  return lanes.map((lane) => ({ path: lane.request.path, body: lane.result?.request ?? lane.request.body }));
}

/** Lists what was written before, and says whether there is anything. */
function showHistory() {
  const entries = remembered();
  $("history-box").hidden = !entries.length;
  $("history").replaceChildren(
    ...entries.map(({ text, requests }) => {
      const [item, button] = ["li", "button"].map((name) => document.createElement(name));
      button.type = "button";
      button.textContent = text || "(empty)";
      button.addEventListener("click", () => open(requests));
      item.append(button);
      return item;
    }),
  );
  return entries.length > 0;
}

/** Shows requests of the history or of a link in the form, and sends them. */
function open(requests) {
  try {
    if (!requests[0].body.tokens) form.load(requests[0]);
  } catch {
    // A link may say anything; the server says what it refuses.
  }
  write(requests);
}

async function start() {
  $("legend").append(
    ...[...Array(10).keys()].map((level) => {
      const block = document.createElement("i");
      block.className = `l${level}`;
      return block;
    }),
  );
  $("how").open = !showHistory();
  try {
    form = new Form(await models(), () => write(form.requests()));
  } catch (error) {
    problem(error);
    return;
  }
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    write(form.requests());
    if ($("watch").getBoundingClientRect().top > window.innerHeight / 2) $("watch").scrollIntoView();
  });
  $("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
  });
  $("stop").addEventListener("click", () => abort?.abort());
  $("again").addEventListener("click", () => writeAgain((i) => chosen.marks.has(i)));
  $("rest").addEventListener("click", () => writeAgain((i) => !chosen.pins.has(i) && !chosen.isGiven(i) && chosen.isVisible(i)));
  $("unmark").addEventListener("click", () => chosen.clearMarks());
  $("revise").addEventListener("click", () => {
    form.texts.revise = chosen.plain;
    form.setMode("revise");
    write(form.requests());
  });
  $("copy").addEventListener("click", () => copy(chosen.plain, "Text"));
  $("link").addEventListener("click", () => copy(link(reproducing()), "Link"));
  $("save-html").addEventListener("click", () => save("html"));
  $("save-gif").addEventListener("click", () => save("gif"));
  $("forget").addEventListener("click", () => {
    forget();
    showHistory();
  });
  window.addEventListener("hashchange", () => linked() && open(linked()));
  if (linked()) open(linked());
  else write(form.requests());
}

start();
