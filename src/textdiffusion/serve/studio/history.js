// What was written before, in this browser, and links that write it again.

const NAME = "textdiffusion history";
const MOST = 20;

/** What a function that uses the browser's storage returns; null where that is forbidden, as in some frames. */
export function recalled(function_) {
  try {
    return function_();
  } catch {
    return null;
  }
}

const isRequest = (each) => ["v1/stream", "v1/revise"].includes(each?.path) && typeof each.body?.model === "string";
const areRequests = (list) => Array.isArray(list) && list.length >= 1 && list.length <= 2 && list.every(isRequest);

export function remembered() {
  const entries = recalled(() => JSON.parse(localStorage.getItem(NAME)));
  return Array.isArray(entries) ? entries.filter((each) => areRequests(each?.requests)) : [];
}

/** Adds what was written to the history: {text, requests}. */
export function remember(entry) {
  const key = JSON.stringify(entry.requests);
  const others = remembered().filter((each) => JSON.stringify(each.requests) !== key);
  recalled(() => localStorage.setItem(NAME, JSON.stringify([entry, ...others].slice(0, MOST))));
}

export function forget() {
  recalled(() => localStorage.removeItem(NAME));
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
    return areRequests(requests) ? requests : null;
  } catch {
    return null;
  }
}
