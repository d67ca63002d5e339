// What was written before, in this browser, and links that write it again.

const NAME = "textdiffusion history";
const MOST = 20;

export function remembered() {
  try {
    return JSON.parse(localStorage.getItem(NAME)) || [];
  } catch {
    return [];
  }
}

/** Adds what was written to the history: {text, requests}. */
export function remember(entry) {
  const key = JSON.stringify(entry.requests);
  const others = remembered().filter((each) => JSON.stringify(each.requests) !== key);
  try {
    localStorage.setItem(NAME, JSON.stringify([entry, ...others].slice(0, MOST)));
  } catch {
    // The browser keeps nothing; the page works without.
  }
}

export function forget() {
  localStorage.removeItem(NAME);
}

/** The address of this page with the requests in it. */
export function link(requests) {
  const bytes = new TextEncoder().encode(JSON.stringify(requests));
  const packed = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `${location.href.split("#")[0]}#${packed}`;
}

/** The requests in this page's address, or null. */
export function linked() {
  try {
    const packed = location.hash.slice(1).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const requests = JSON.parse(new TextDecoder().decode(bytes));
    const isOne = (each) => ["v1/stream", "v1/revise"].includes(each?.path) && typeof each.body?.model === "string";
    return Array.isArray(requests) && requests.length >= 1 && requests.length <= 2 && requests.every(isOne) ? requests : null;
  } catch {
    return null;
  }
}
