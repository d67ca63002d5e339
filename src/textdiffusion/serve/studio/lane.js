// One text while it is written: its frames, its marks, and how a frame is drawn.

const LEVELS = 10;
const LAST_FRAMES = 60; // of a saved recording

const percent = (p) => (p >= 0.995 && p < 1 ? ">99 %" : p > 0 && p < 0.01 ? "<1 %" : `${Math.round(100 * p)} %`);
const visible = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "␣") || "∅";

/** Tokens with the text of each: given text that has a character for each token comes in one piece. */
function spread(tokens, hasLetters) {
  const spreadOut = [...tokens];
  for (let i = 0; i < tokens.length; i += 1) {
    const characters = [...tokens[i].text];
    const others = tokens.slice(i + 1, i + characters.length);
    const isSplit = others.length === characters.length - 1 && others.every((each) => each.state === "given" && !each.text);
    const next = tokens[i + characters.length];
    const isAll = hasLetters || next?.text || next?.state !== "given";
    if (tokens[i].state !== "given" || characters.length < 2 || !isSplit || !isAll) continue;
    characters.forEach((text, k) => (spreadOut[i + k] = { ...tokens[i + k], text }));
  }
  return spreadOut;
}

export class Lane {
  /** `told` is called with a token's position when it gets the focus or the pointer, `marked` when marks change.
   *  `before` is the lane of which some tokens are written again: the others keep their colours. */
  constructor(title, facts, told, marked, before = null) {
    this.facts = facts;
    this.before = before;
    this.told = told;
    this.marked = marked;
    this.frames = [];
    this.result = null;
    this.shown = -1;
    this.current = 0; // the token that Tab reaches
    this.marks = new Set();
    this.pins = new Set();
    this.root = document.getElementById("lane").content.firstElementChild.cloneNode(true);
    this.title = title;
    this.root.querySelector("h2").textContent = title;
    this.text = this.root.querySelector(".text");
    this.text.setAttribute("aria-label", `${title}: tokens`);
    this.status = this.root.querySelector(".status");
    this.bits = this.root.querySelector(".bits");
    this.noise = this.root.querySelector(".noise i");
    this.isGrid = facts.task === "sudoku";
    this.text.classList.toggle("grid", this.isGrid);
    this.text.addEventListener("click", (event) => this.#act(event.target, event.shiftKey));
    this.text.addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault()); // no selection
    this.text.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["focusin", "pointerover"])
      this.text.addEventListener(name, (event) => this.#tell(event.target, name === "focusin"));
  }

  /** Adds a step, unless it changes nothing (the last one counts always). */
  add(step) {
    const tokens = spread(step.rows[0].tokens, this.isGrid).map((token, i) => this.#asBefore(token, i));
    const before = this.frames.at(-1)?.tokens;
    const same = before?.length === tokens.length && before.every((each, i) => each.id === tokens[i].id && each.confidence === tokens[i].confidence);
    const frame = { step: step.step, total: step.total, t: step.t, calls: step.calls, tokens };
    if (same && this.frames.length > 1) this.frames[this.frames.length - 1] = frame;
    else this.frames.push(frame);
  }

  /** A token as it was, where it is given only because others are written again. */
  #asBefore(token, i) {
    if (!this.before || token.state !== "given" || this.before.isGiven(i)) return token;
    const old = this.before.frames.at(-1).tokens[i];
    return { ...token, state: "decided", confidence: old?.confidence ?? 1, alternatives: this.before.chosenFrom(i) };
  }

  /** Whether the user gave the token at a position of the finished text. */
  isGiven(i) {
    return this.before ? this.before.isGiven(i) : !this.facts.isRevision && this.frames.at(-1).tokens[i]?.state === "given";
  }

  /** Whether a position of the finished text has text, and is not beyond its end. */
  isVisible(i) {
    const tokens = this.frames.at(-1).tokens;
    return i <= tokens.findLastIndex((each) => each.text);
  }

  /** What a token of the finished text was chosen from. */
  chosenFrom(i) {
    return this.#source(i, this.frames.length - 1).tokens[i]?.alternatives;
  }

  finish(done) {
    this.result = done;
    this.bits.textContent = "measuring bits per character …";
  }

  /** Shows how likely the text is for the model; null: unknown. */
  rate(score) {
    const sign = score?.exact ? ["", ""] : ["at most ", ` ± ${score?.error.toFixed(2)}`];
    this.bits.textContent = score ? `${sign[0]}${score.bits.toFixed(2)}${sign[1]} bits per character` : "";
  }

  get isFinished() {
    return this.result !== null;
  }

  /** Draws a frame by its number; beyond the last one, the last. */
  show(number) {
    const at = Math.min(number, this.frames.length - 1);
    if (at < 0) return;
    const frame = this.frames[at];
    const isNew = frame !== this.drawn;
    this.shown = at;
    this.drawn = frame;
    while (this.text.children.length > frame.tokens.length) this.text.lastElementChild.remove();
    while (this.text.children.length < frame.tokens.length) {
      const button = document.createElement("span"); // a real button would not break between lines
      button.setAttribute("role", "button");
      button.tabIndex = -1;
      this.text.append(button);
    }
    if (this.current >= frame.tokens.length) this.current = 0;
    if (isNew) frame.tokens.forEach((token, i) => this.#draw(this.text.children[i], token, i, at));
    this.#outline();
    this.noise.style.setProperty("--left", frame.t);
    const calls = frame.calls ? `, ${Math.round(frame.calls * 10) / 10} network calls` : "";
    this.status.textContent = `step ${frame.step} of ${frame.total}, noise ${Math.round(100 * frame.t)} %${calls}`;
  }

  #draw(button, token, i, at) {
    const isHole = token.state === "masked";
    const before = at > 0 ? this.frames[at - 1].tokens[i] : null;
    const isChanged = token.state !== "given" && !isHole && at > 0 && before?.id !== token.id;
    const level = Math.min(LEVELS - 1, Math.floor(token.confidence * LEVELS));
    const names = [isHole ? "hole" : token.state === "given" ? "given" : `l${level}`];
    if (isChanged) names.push("changed");
    button.className = names.join(" ");
    button.textContent = isHole ? "" : this.#spelled(token.text);
    button.hidden = !isHole && !token.text; // the end, padding, and the rest of a character
    const state = isHole ? "noise" : token.state === "given" ? "given" : `${percent(token.confidence)} sure`;
    button.setAttribute("aria-label", isHole ? `noise, token ${i + 1}` : `${this.#spelled(token.text).trim() || visible(token.text)}, ${state}`);
  }

  #spelled(text) {
    return this.isGrid && /^[a-i]$/.test(text) ? String(text.charCodeAt(0) - 96) : text;
  }

  #outline() {
    const isDone = this.shown === this.frames.length - 1;
    const hidden = this.text.children[this.current]?.hidden;
    if (hidden) this.current = Math.max(0, [...this.text.children].findIndex((each) => !each.hidden));
    [...this.text.children].forEach((button, i) => {
      button.classList.toggle("marked", isDone && this.marks.has(i));
      button.classList.toggle("pinned", this.pins.has(i));
      button.setAttribute("aria-pressed", String(this.marks.has(i) || this.pins.has(i)));
      if (this.pins.has(i)) button.setAttribute("aria-description", "pinned");
      else if (this.marks.has(i)) button.setAttribute("aria-description", "to write again");
      else button.removeAttribute("aria-description");
      button.tabIndex = i === this.current ? 0 : -1;
    });
  }

  #position(target) {
    const button = target.closest("[role=button]");
    return button ? [...this.text.children].indexOf(button) : -1;
  }

  #tell(target, isFocus) {
    const position = this.#position(target);
    if (position < 0) return;
    if (isFocus) {
      this.current = position;
      this.#outline();
    }
    this.told(this, position);
  }

  #act(target, pins) {
    const position = this.#position(target);
    if (position < 0) return;
    this.toggle(position, pins ? this.pins : this.chosenSet);
  }

  /** What a click does: it marks or pins. */
  get chosenSet() {
    return document.querySelector("[name=act]:checked").value === "pins" ? this.pins : this.marks;
  }

  /** Adds a position to the marks or the pins, or takes it away; a position has at most one of them. */
  toggle(position, set) {
    const other = set === this.marks ? this.pins : this.marks;
    const isOn = set.has(position);
    for (const each of this.#piece(position)) {
      if (isOn) set.delete(each);
      else set.add(each);
      other.delete(each);
    }
    this.#outline();
    this.marked(this);
  }

  /** The positions of a piece of text: of several tokens that were given together, or make up one character, the first has the text. */
  #piece(position) {
    const tokens = this.drawn.tokens;
    let end = position + 1;
    while (end < tokens.length && !tokens[end].text && tokens[end].state !== "masked") end += 1;
    const isInside = end < tokens.length || tokens[position].state === "given";
    return isInside ? [...Array(end - position).keys()].map((i) => position + i) : [position];
  }

  clearMarks() {
    this.marks.clear();
    this.pins.clear();
    this.#outline();
    this.marked(this);
  }

  #key(event) {
    const position = this.#position(event.target);
    if (position < 0) return;
    const buttons = [...this.text.children];
    const step = { ArrowRight: 1, ArrowDown: this.isGrid ? 9 : 1, ArrowLeft: -1, ArrowUp: this.isGrid ? -9 : -1 }[event.key];
    if (step) {
      let next = position + step;
      while (buttons[next]?.hidden) next += step;
      buttons[next]?.focus();
    } else if (event.key === "Home") buttons.find((each) => !each.hidden)?.focus();
    else if (event.key === "End") buttons.findLast((each) => !each.hidden)?.focus();
    else if (event.key.toLowerCase() === "p") this.toggle(position, this.pins);
    else if (event.key === "Enter" || event.key === " ") this.toggle(position, this.chosenSet);
    else return;
    event.preventDefault();
  }

  /** The frame whose prediction a token comes from: where noise is everywhere the current one, else where it was written. */
  #source(position, shown = this.shown) {
    const id = this.frames[shown].tokens[position]?.id ?? null;
    let at = shown;
    if (id === null || ["gaussian", "uniform"].includes(this.facts.noise)) return this.frames[at];
    while (at > 1 && this.frames[at - 1].tokens[position]?.id === id) at -= 1;
    return this.frames[at];
  }

  /** The position of the written token that the model was least sure of, or -1. */
  get leastSure() {
    const tokens = this.frames.at(-1)?.tokens ?? [];
    const written = [...tokens.keys()].filter((i) => tokens[i].text.trim() && !["masked", "given"].includes(tokens[i].state));
    return written.reduce((best, i) => (best < 0 || tokens[i].confidence < tokens[best].confidence ? i : best), -1);
  }

  /** What the model considered at a position of the frame that is shown, as nodes. */
  considered(position) {
    if (!this.drawn?.tokens[position]) return [];
    const source = this.#source(position);
    const token = { ...this.drawn.tokens[position], alternatives: source.tokens[position].alternatives };
    const title = document.createElement("h3");
    const name = `Token ${position + 1}`;
    const word = `“${visible(this.#spelled(token.text))}”`;
    if (token.state === "masked") title.textContent = `${name}: noise. Most likely now:`;
    else if (token.state === "given") title.textContent = `${name}: ${word}, given`;
    else title.textContent = `${name}: ${word}, chosen at step ${source.step} from:`;
    const list = document.createElement("ol");
    const likeliest = token.alternatives || [];
    const isRare = likeliest.length && token.state !== "masked" && !likeliest.some(([, , id]) => id === token.id);
    for (const [text, probability, id] of isRare ? [...likeliest, [token.text, token.confidence, token.id]] : likeliest) {
      const item = document.createElement("li");
      const [word, value, bar] = ["span", "b", "i"].map((name) => document.createElement(name));
      word.textContent = visible(this.#spelled(text));
      value.textContent = percent(probability);
      bar.style.setProperty("--p", probability);
      item.classList.toggle("chosen", id === token.id);
      item.append(word, value, bar);
      list.append(item);
    }
    if (list.children.length) return [title, list];
    const none = document.createElement("p");
    none.className = "hint";
    none.textContent = token.state === "given" ? "You gave it, so the model did not choose." : "No prediction was made here at this step.";
    return [title, none];
  }

  /** The text that is shown. */
  get plain() {
    return this.result?.texts[0] ?? this.drawn?.tokens.map((each) => each.text).join("") ?? "";
  }

  /** The frames for a file: at most 60, the first and the last among them. */
  recording() {
    const count = Math.min(LAST_FRAMES, this.frames.length);
    const numbers = [...Array(count).keys()].map((i) => Math.round((i * (this.frames.length - 1)) / Math.max(1, count - 1)));
    const frames = numbers.map((number) => {
      const { step, total, t, calls, tokens } = this.frames[number];
      return { step, total, t, calls, tokens: tokens.map((each) => [each.text, each.confidence, each.state]) };
    });
    return { title: `textdiffusion: ${this.facts.id}`, facts: { model: this.facts.id, steps: frames.at(-1).total, seed: this.result?.seed ?? 0 }, frames };
  }
}
