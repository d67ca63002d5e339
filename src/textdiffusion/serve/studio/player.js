// The clock: it shows the frames of all lanes together, at a pace for people.

const SECONDS = 6; // of a whole recording at normal speed
const [FASTEST, SLOWEST] = [40, 450]; // milliseconds of a step at normal speed

const $ = (id) => document.getElementById(id);

export class Player {
  constructor(shown) {
    this.lanes = [];
    this.at = 0;
    this.isPlaying = false;
    this.shown = shown;
    this.timer = 0;
    $("first").addEventListener("click", () => this.stop(0));
    $("back").addEventListener("click", () => this.stop(this.at - 1));
    $("forward").addEventListener("click", () => this.stop(this.at + 1));
    $("last").addEventListener("click", () => this.stop(this.end));
    $("play").addEventListener("click", () => (this.isPlaying ? this.stop(this.at) : this.play(this.at >= this.end ? 0 : this.at)));
    $("time").addEventListener("input", () => this.stop(Number($("time").value)));
  }

  get end() {
    return Math.max(0, ...this.lanes.map((lane) => lane.frames.length - 1));
  }

  get isComplete() {
    return this.lanes.every((lane) => lane.isFinished);
  }

  watch(lanes) {
    this.lanes = lanes;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.stop(0);
    else this.play(0);
  }

  play(at) {
    this.isPlaying = true;
    this.show(at);
    this.#wait();
  }

  /** Shows a frame and stays there. */
  stop(at) {
    this.isPlaying = false;
    clearTimeout(this.timer);
    this.show(at);
  }

  show(at) {
    this.at = Math.max(0, Math.min(at, this.end));
    for (const lane of this.lanes) lane.show(this.at);
    this.#controls();
    this.shown();
  }

  /** Called when frames have come in. */
  grown() {
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches && this.isComplete;
    if (isStill) this.stop(this.end);
    else if (!this.lanes.some((lane) => lane.shown >= 0)) this.show(this.at);
    else this.#controls();
  }

  #wait() {
    clearTimeout(this.timer);
    const steps = (lane) => (lane.isFinished ? lane.frames.length : (lane.frames.at(-1)?.total ?? 1));
    const total = Math.max(1, ...this.lanes.map(steps));
    const pace = Math.max(FASTEST, Math.min(SLOWEST, (1000 * SECONDS) / total)) / Number($("speed").value);
    this.timer = setTimeout(() => {
      if (!this.isPlaying) return;
      if (this.at < this.end) this.show(this.at + 1);
      else if (this.isComplete) return this.stop(this.end);
      this.#wait();
    }, pace);
  }

  #controls() {
    const [time, end] = [$("time"), this.end];
    time.max = end;
    time.value = this.at;
    time.setAttribute("aria-valuetext", `step ${this.at} of ${end}`);
    $("play").textContent = this.isPlaying ? "Pause" : "Play";
    $("first").disabled = $("back").disabled = this.at === 0;
    $("last").disabled = $("forward").disabled = this.at >= end;
  }
}
