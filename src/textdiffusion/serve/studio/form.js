// The form: what a run takes, and the request that the fields make.

const $ = (id) => document.getElementById(id);

// Of the runs that come with the package; others start with what suits their kind.
const EXAMPLES = {
  restaurants: {
    template: ["The Dragon Inn is a [MASK:6] restaurant near the [MASK:5].", "[MASK:4] serves [MASK:8] and is family friendly.", "The [MASK:3] has a [MASK:3] rating, but [MASK:9]."],
    revise: ["The Vaults is a banana pub near the river. It is yellow friendly and has a high customer rating."],
    prompt: ["The Golden Fork is", "Near the river"],
  },
  shakespeare: {
    template: ["To be, or not to be: [MASK:12].", "My lord, the [MASK:4] is [MASK:6].", "[MASK:8]\nAnd so good night."],
    revise: ["To be, or not to table, that is the question."],
    prompt: ["ROMEO:\n", "Shall I compare thee"],
  },
  sudoku: { template: ["53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"], revise: [], prompt: [] },
};

const HINTS = {
  template: "[MASK:5] is a gap of five tokens (pieces of words).",
  open: " [MASK] alone is a gap as long as the model likes.",
  question: "A sudoku is 81 characters, row by row, with a dot for each blank.",
  prompt: "The text begins with this; empty writes from pure noise.",
  revise: "Noise is put on this draft and taken off again. The number of tokens stays.",
};

const LABELS = { template: "Text with gaps", prompt: "Beginning", revise: "Draft" };

// Settings of a sampler that have a field of their own in the form.
const OWN_FIELDS = ["steps", "temperature"];

export class Form {
  constructor(runs, changed) {
    this.runs = runs;
    this.texts = { template: null, prompt: null, revise: null };
    for (const select of [$("run"), $("run-b")]) select.replaceChildren(...runs.map((run) => option(run.id, run.id)));
    $("run").addEventListener("change", () => this.setRun($("run").value));
    $("run-b").addEventListener("change", () => this.#setSecond());
    $("sampler").addEventListener("change", () => this.#setSampler());
    $("add-guide").addEventListener("click", () => this.#addGuide($("guide").value));
    for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", () => this.setMode(radio.value));
    $("text").addEventListener("input", () => (this.texts[this.mode] = $("text").value));
    $("gap").addEventListener("click", () => insertGap());
    $("dice").addEventListener("click", () => ($("seed").value = crypto.getRandomValues(new Uint32Array(1))[0]));
    for (const id of ["temperature", "strength"]) $(id).addEventListener("input", () => showRanges());
    this.changed = changed;
    this.setRun(runs[0].id);
  }

  get run() {
    return this.runs.find((run) => run.id === $("run").value);
  }

  get mode() {
    return document.querySelector("[name=mode]:checked").value;
  }

  setRun(id) {
    $("run").value = id;
    const run = this.run;
    const size = run.parameters >= 1e9 ? `${(run.parameters / 1e9).toFixed(1)} billion` : `${(run.parameters / 1e6).toFixed(1)} million`;
    $("what").textContent = `${run.what ? `${capital(run.what).replace(/[.]+$/, "")}. ` : ""}${size} parameters, recipe ${run.recipe}.${run.infill_warning ? ` ${run.infill_warning}` : ""}`;
    $("how-noise").textContent = explained(run);
    $("length").value = "";
    $("length").placeholder = `as trained: ${run.length}`;
    $("length").max = run.max_length;
    $("steps").placeholder = run.steps;
    $("steps").value = "";
    $("steps").max = run.max_steps;
    $("label").replaceChildren(option("", "any"), ...(run.label || []).map((name) => option(name, name)));
    $("label-field").hidden = !run.label;
    $("source-field").hidden = !run.source;
    $("sampler").replaceChildren(...run.samplers.map((each) => option(each.name, each.default ? `${each.name} (default)` : each.name)));
    $("sampler").value = run.sampler;
    $("guide").replaceChildren(...run.guides.map((each) => option(each.name, each.name)));
    $("guides").replaceChildren();
    $("temperature").value = Math.round(100 * temperatureOf(run));
    this.texts = { template: null, prompt: null, revise: null };
    this.#setSampler();
    this.#setSecond();
    $("run-b").value = id;
    this.#setSecond();
    this.setMode(run.task ? "template" : this.mode);
    showRanges();
  }

  setMode(mode) {
    for (const radio of document.querySelectorAll("[name=mode]")) radio.checked = radio.value === mode;
    const run = this.run;
    const examples = EXAMPLES[run.id]?.[mode] || (run.task ? [] : { template: [`[MASK:${Math.min(12, run.length)}]`], prompt: [], revise: [] }[mode]);
    this.texts[mode] ??= examples[0] || "";
    if (mode === "prompt" && EXAMPLES[run.id]) this.texts[mode] ??= "";
    $("text").value = this.texts[mode];
    $("text-label").textContent = run.task && mode === "template" ? "Question" : LABELS[mode];
    $("text-hint").textContent = mode !== "template" ? HINTS[mode] : run.task ? HINTS.question : HINTS.template + (run.open_gaps ? HINTS.open : "");
    $("gap-tools").hidden = mode !== "template" || Boolean(run.task);
    $("length-field").hidden = mode !== "prompt";
    $("strength-field").hidden = mode !== "revise";
    document.querySelector(".tabs").hidden = Boolean(run.task);
    $("go").textContent = mode === "revise" ? "Revise" : "Write";
    $("examples").hidden = examples.length < 2;
    $("examples").replaceChildren(
      ...examples.map((text) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text.length > 34 ? `${text.slice(0, 33)}…` : text;
        button.addEventListener("click", () => {
          this.texts[mode] = $("text").value = text;
          this.changed();
        });
        return button;
      }),
    );
  }

  #setSampler() {
    const sampler = this.run.samplers.find((each) => each.name === $("sampler").value);
    $("sampler-what").textContent = plain(sampler.what);
    $("sampler-settings").replaceChildren(...sampler.settings.filter((each) => !OWN_FIELDS.includes(each.name)).map((each) => field(each, `set-${each.name}`)));
  }

  #setSecond() {
    const run = this.runs.find((each) => each.id === $("run-b").value) || this.run;
    $("sampler-b").replaceChildren(...run.samplers.map((each) => option(each.name, each.name)));
    $("sampler-b").value = run.sampler;
    $("steps-b").placeholder = run.steps;
    $("steps-b").value = "";
    $("temperature-b").placeholder = "the same";
  }

  #addGuide(name, values = {}) {
    const guide = this.run.guides.find((each) => each.name === name);
    if (!guide) return;
    const box = document.createElement("div");
    box.className = "guide";
    box.dataset.kind = name;
    const line = document.createElement("div");
    line.className = "line";
    const title = document.createElement("strong");
    title.textContent = name;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => {
      box.remove();
      $("guide").focus();
    });
    line.append(title, remove);
    const what = document.createElement("p");
    what.className = "hint";
    what.textContent = plain(guide.what);
    const number = document.querySelectorAll(".guide").length;
    box.append(line, what, ...guide.settings.map((each) => field(each, `guide-${number}-${each.name}`, values[each.name])));
    $("guides").append(box);
    box.querySelector("input, select")?.focus();
  }

  /** The requests of the form: one, or two to compare, as [{path, body}]. */
  requests() {
    const run = this.run;
    const body = { model: run.id, seed: Number($("seed").value || 0), temperature: Number($("temperature").value) / 100 };
    const text = $("text").value;
    if (this.mode === "template") body.template = text;
    else if (this.mode === "revise") {
      Object.assign(body, { text, strength: Number($("strength").value) / 100, select: $("suspect").checked ? "suspect" : "random" });
      body.keep = $("keep").value.split(",").map((phrase) => phrase.trim()).filter(Boolean);
    }
    else {
      if (text) body.prompt = text;
      if ($("length").value) body.length = Number($("length").value);
    }
    if ($("steps").value) body.steps = Number($("steps").value);
    const sampler = { kind: $("sampler").value, ...values($("sampler-settings")) };
    if (sampler.kind !== run.sampler || Object.keys(sampler).length > 1) body.sampler = sampler; // else the run chooses
    body.guides = [...document.querySelectorAll(".guide")].map((box) => ({ kind: box.dataset.kind, ...values(box) }));
    if (run.label && $("label").value) body.label = $("label").value;
    if (run.source && $("source").value) body.source = $("source").value;
    const path = this.mode === "revise" ? "v1/revise" : "v1/stream";
    const first = { path, body };
    return $("compare").checked ? [first, { path, body: this.#second(body) }] : [first];
  }

  #second(body) {
    const run = this.runs.find((each) => each.id === $("run-b").value);
    const second = { ...body, model: run.id };
    delete second.sampler;
    delete second.steps;
    if ($("sampler-b").value !== run.sampler) second.sampler = { kind: $("sampler-b").value };
    if ($("steps-b").value) second.steps = Number($("steps-b").value);
    if ($("temperature-b").value) second.temperature = Number($("temperature-b").value);
    if (!run.label?.includes(second.label)) delete second.label;
    if (!run.source) delete second.source;
    second.guides = second.guides.filter((guide) => run.guides.some((each) => each.name === guide.kind));
    return second;
  }

  /** Puts a request back into the fields. */
  load({ body }) {
    if (this.runs.some((run) => run.id === body.model)) this.setRun(body.model);
    const mode = body.text !== undefined ? "revise" : body.template !== undefined ? "template" : "prompt";
    this.texts[mode] = body.text ?? body.template ?? body.prompt ?? "";
    this.setMode(mode);
    $("length").value = body.length ?? "";
    if (body.strength !== undefined) $("strength").value = Math.round(100 * body.strength);
    $("suspect").checked = body.select === "suspect";
    $("keep").value = (body.keep || []).join(", ");
    $("seed").value = body.seed ?? 0;
    $("steps").value = body.steps ?? "";
    $("temperature").value = Math.round(100 * (body.temperature ?? 1));
    if (body.label) $("label").value = body.label;
    if (body.source) $("source").value = body.source;
    if (body.sampler?.kind) {
      $("sampler").value = body.sampler.kind;
      this.#setSampler();
      fill($("sampler-settings"), body.sampler);
    }
    $("guides").replaceChildren();
    for (const guide of body.guides || []) this.#addGuide(guide.kind, guide);
    showRanges();
  }
}

/** Where the temperature starts: at the run's own, or at what suits a small model if the run says nothing. */
function temperatureOf(run) {
  if (run.temperature !== 1 || !(run.task || EXAMPLES[run.id])) return run.temperature;
  return run.task ? 0 : 0.7;
}

function showRanges() {
  $("temperature-value").textContent = (Number($("temperature").value) / 100).toFixed(2);
  $("strength-value").textContent = `${$("strength").value} %`;
}

function insertGap() {
  const text = $("text");
  const size = Number($("gap-size").value);
  text.setRangeText(size > 0 ? `[MASK:${size}]` : "[MASK]", text.selectionStart, text.selectionEnd, "end");
  text.dispatchEvent(new Event("input"));
  text.focus();
}

const plain = (text) => text.replaceAll("`", "");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function explained(run) {
  const start = "The model learned to remove noise from text. It starts from noise";
  const ends = {
    absorbing: ", where every token is hidden (grey), and reveals tokens in steps: anywhere in the text, not from left to right.",
    uniform: " of random tokens, and replaces them in steps until they fit together.",
    gaussian: ": each token is a vector with much random noise on it. All of them become clearer together; what you see is the model's best guess at each step.",
    block_absorbing: " and writes one block of tokens after the other, each from noise.",
    autoregressive_order: " and, for comparison, this model writes one token at a time from left to right, as most language models do.",
  };
  return start + (ends[run.noise] || " and removes it in steps.");
}

function option(value, text) {
  const node = document.createElement("option");
  [node.value, node.textContent] = [value, text];
  return node;
}

/** A field for a setting {name, type, default, choices}. */
function field(setting, id, value = setting.default) {
  const box = document.createElement("div");
  box.className = setting.type === "bool" ? "check" : "field";
  const label = document.createElement("label");
  label.htmlFor = id;
  label.textContent = setting.name.replaceAll("_", " ") + (setting.required ? " (required)" : "");
  const input = document.createElement(setting.type === "choice" ? "select" : "input");
  input.id = id;
  input.dataset.name = setting.name;
  input.dataset.type = setting.type;
  input.dataset.default = JSON.stringify(setting.default ?? null);
  if (setting.type === "choice") input.replaceChildren(...setting.choices.map((choice) => option(choice, choice)));
  else if (setting.type === "bool") input.type = "checkbox";
  else input.type = ["int", "float"].includes(setting.type) ? "number" : "text";
  if (setting.type === "float") input.step = "any";
  if (setting.type === "bool") input.checked = Boolean(value);
  else input.value = value ?? "";
  box.append(...(setting.type === "bool" ? [input, label] : [label, input]));
  if (!setting.what) return box;
  const what = document.createElement("p");
  what.className = "hint";
  what.id = `${id}-what`;
  what.textContent = plain(setting.what);
  input.setAttribute("aria-describedby", what.id);
  if (setting.type !== "bool") {
    box.append(what);
    return box;
  }
  const both = document.createElement("div");
  both.append(box, what);
  return both;
}

/** The values of the fields in a box that differ from their defaults. */
function values(box) {
  const found = {};
  for (const input of box.querySelectorAll("[data-name]")) {
    const { name, type } = input.dataset;
    const value = type === "bool" ? input.checked : ["int", "float"].includes(type) ? (input.value === "" ? null : Number(input.value)) : input.value;
    if (JSON.stringify(value) !== input.dataset.default && value !== null && value !== "") found[name] = value;
  }
  return found;
}

function fill(box, settings) {
  for (const input of box.querySelectorAll("[data-name]")) {
    const value = settings[input.dataset.name];
    if (value === undefined || value === null) continue;
    const shown = typeof value === "object" ? value.kind : value;
    if (input.dataset.type === "bool") input.checked = Boolean(value);
    else if (shown !== undefined) input.value = shown;
  }
}
