"""What a person sees of a training run: a live line in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..config import Training
from .records import Finished, Logged, Record, Sampled, Validated
from .sinks import Sink

PAUSE = 10.0  # seconds between two plain lines, at least


class Display(Sink):
    """Loss, speed and time left; validations and samples as they come."""

    def __init__(self, training: Training, console: Console) -> None:
        self.training, self.console = training, console
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._printed = -PAUSE
        self._start: tuple[float, float] | None = None  # clock and progress when the first record came
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not self.live)
        self._task = self._bar.add_task("training", total=1.0, state="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, record: Record) -> None:
        match record:
            case Logged():
                self._logged(record)
            case Validated():
                mark = " (best)" if record.best else ""
                self._print(
                    f"step {record.step}: validation {record.bits:.3f} ± {record.error:.3f} bits per character{mark}, "
                    f"raw weights {record.raw_bits:.3f}"
                )
            case Sampled():
                for text in record.texts:
                    self._print(f"  | {' '.join(text.split())}")
            case Finished() if record.complete:
                best = (
                    ""
                    if record.best is None
                    else f" Best validation {record.best.bits:.3f} at step {record.best.step}."
                )
                self._print(f"Finished at step {record.step}.{best}")
            case Finished():
                self._print(
                    f"Stopped by {record.signal} after step {record.step}; everything is saved. "
                    "The same command continues the run."
                )

    def _logged(self, record: Logged) -> None:
        text = (
            f"step {record.step}  loss {record.loss:.3f}  {record.tokens_per_second:,.0f} tokens/s  "
            f"{self._left(record.progress)}"
        )
        if self.live:
            self._bar.update(self._task, completed=record.progress, state=text)
        elif time.monotonic() - self._printed >= PAUSE or record.progress >= 1.0:
            self._printed = time.monotonic()
            self._print(text)

    def _left(self, progress: float) -> str:
        now = time.monotonic()
        if self._start is None:
            self._start = (now, progress)
            return ""
        clock, first = self._start
        if progress <= first:
            return ""
        seconds = round((now - clock) * (1.0 - progress) / (progress - first))
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d} left" if hours else f"{rest // 60}:{rest % 60:02d} left"

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
