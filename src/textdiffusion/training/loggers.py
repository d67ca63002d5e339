"""Consumers of training events: the run's files, the progress display, and trackers."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..config.training import Training
from ..core.errors import UserError
from .events import Event, Finished, Logged, Sampled, Validated
from .notebook import NotebookBar
from .run_folder import RunFolder

PRINT_INTERVAL = 10.0  # least seconds between two progress lines where there is no live display


class Logger(ABC):
    """Receives events one by one; a context manager."""

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *error: object) -> None:  # noqa: B027 most loggers have nothing to close
        pass

    @abstractmethod
    def __call__(self, event: Event) -> None: ...


class MetricsFile(Logger):
    """Appends each event to `metrics.jsonl` as one line, without delay. NaN and infinity are written as null."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __call__(self, event: Event) -> None:
        fields = {name: _to_json(value) for name, value in dataclasses.asdict(event).items()}
        line = json.dumps({"event": type(event).__name__.lower(), **fields}, allow_nan=False)
        self.folder.append_metrics(line + "\n")


def _to_json(value: Any) -> Any:
    match value:
        case dict():
            return {name: _to_json(part) for name, part in value.items()}
        case float() if not math.isfinite(value):
            return None
        case Path():
            return value.name
        case _:
            return value


class SampleFiles(Logger):
    """Writes samples to `samples/step-*.txt`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __call__(self, event: Event) -> None:
        if isinstance(event, Sampled):
            text = "\n\n".join(f"--- {i} ---\n{text}" for i, text in enumerate(event.texts, 1)) + "\n"
            self.folder.write_samples(event.step, text)


class TensorBoard(Logger):
    """Writes losses, bounds, speed and samples to `tensorboard/`. Raises UserError if TensorBoard is not installed."""

    def __init__(self, folder: RunFolder) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("Tracking with TensorBoard needs: pip install 'textdiffusion[track]'") from None
        self.writer = SummaryWriter(str(folder.path / "tensorboard"))

    def __exit__(self, *error: object) -> None:
        self.writer.close()

    def __call__(self, event: Event) -> None:
        match event:
            case Logged():
                scalars = {"train/loss": event.loss, **{f"train/{name}": v for name, v in event.parts.items()}}
                scalars |= {"train/grad_norm": event.grad_norm, "train/lr_scale": event.lr_scale}
                scalars |= {"speed/tokens_per_second": event.tokens_per_second}
            case Validated():
                scalars = {"valid/bits": event.bits, "valid/raw_bits": event.raw_bits}
            case _:
                scalars = {}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, event.step)
        if isinstance(event, Sampled):
            self.writer.add_text("samples", "\n\n".join(f"    {text}" for text in event.texts), event.step)


TRACKERS = {"tensorboard": TensorBoard}


def tracker(name: str, folder: RunFolder) -> Logger:
    """The tracker called `name`. Raises UserError if there is none."""
    if name not in TRACKERS:
        raise UserError(f"track is {name!r}; it can be {', '.join(TRACKERS)}.")
    return TRACKERS[name](folder)


class ProgressDisplay(Logger):
    """Shows loss, speed and remaining time, and prints validations and samples."""

    def __init__(self, training: Training, console: Console) -> None:
        self.training, self.console = training, console
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._last_print = -PRINT_INTERVAL
        self._start: tuple[float, float] | None = None  # clock and progress at the first event
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not self.live)
        self._task = self._bar.add_task("training", total=1.0, state="")
        self._notebook = NotebookBar() if console.is_jupyter else None

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Logged():
                self._show_progress(event)
            case Validated():
                mark = " (best)" if event.best else ""
                self._print(
                    f"step {event.step}: validation {event.bits:.3f} ± {event.error:.3f} bits per character{mark}, "
                    f"raw weights {event.raw_bits:.3f}"
                )
            case Sampled():
                for text in event.texts:
                    self._print(f"  | {' '.join(text.split())}")
            case Finished() if event.complete:
                best = event.best and f" Best validation {event.best.bits:.3f} at step {event.best.step}."
                self._print(f"Finished at step {event.step}.{best or ''}")
            case Finished():
                self._print(
                    f"Stopped by {event.signal} after step {event.step}; everything is saved. "
                    "The same command continues the run."
                )

    def _show_progress(self, event: Logged) -> None:
        text = (
            f"step {event.step}  loss {event.loss:.3f}  {event.tokens_per_second:,.0f} tokens/s  "
            f"{self._remaining(event.progress)}"
        )
        if self._notebook:
            self._notebook.update(event.progress, text)
        elif self.live:
            self._bar.update(self._task, completed=event.progress, state=text)
        elif time.monotonic() - self._last_print >= PRINT_INTERVAL or event.progress >= 1.0:
            self._last_print = time.monotonic()
            self._print(text)

    def _remaining(self, progress: float) -> str:
        now = time.monotonic()
        if self._start is None:
            self._start = (now, progress)
            return ""
        start_time, start_progress = self._start
        if progress <= start_progress:
            return ""
        seconds = round((now - start_time) * (1.0 - progress) / (progress - start_progress))
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d} left" if hours else f"{rest // 60}:{rest % 60:02d} left"

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
