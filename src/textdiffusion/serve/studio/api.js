// What the page asks of the server. Addresses are relative, so that the page works behind a proxy.

import { recalled } from "./history.js";

export class Refused extends Error {}

let key = recalled(() => sessionStorage.getItem("key")) || "";

async function call(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    const given = window.prompt("This server wants its API key:");
    if (given) {
      key = given;
      recalled(() => sessionStorage.setItem("key", key));
      return call(path, body, signal);
    }
  }
  const told = await answer.json().catch(() => null);
  throw new Refused(told?.error?.message || `The server answered ${answer.status}.`);
}

/** The runs of the server, as [{id, ...facts}]. */
export async function models() {
  const list = (await (await call("v1/models")).json()).data;
  return list.map((each) => ({ id: each.id, ...each.textdiffusion }));
}

/** Follows a stream of steps; `onStep` gets each of them, and the promise what the last event says. */
export async function stream(path, body, onStep, signal) {
  const reader = (await call(path, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let last = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done && last) return last;
    if (done) throw new Refused("The server ended the answer too early.");
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const each of events) {
      const name = /^event: ?(.*)$/m.exec(each)?.[1];
      const data = each.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (!name) continue;
      const told = JSON.parse(data);
      if (name === "step") onStep(told);
      else if (name === "done") last = told;
      else if (name === "error") throw new Refused(told.error.message);
    }
  }
}

/** Bits per character of a text, as {bits, error}. */
export async function score(body, signal) {
  return (await (await call("v1/score", body, signal)).json()).scores[0];
}

/** A recording as a file, "html" or "gif". */
export async function file(kind, recording) {
  return (await call("v1/record", { format: kind, ...recording })).blob();
}
