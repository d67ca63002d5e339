"""Consumers of the loop's records: the run's files and trackers."""

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

from ..config.config import Training
from ..core.errors import UserError
from .events import Event, Finished, Logged, Sampled, Validated
from .run_folder import RunFolder


class Logger(ABC):
    """Takes records one by one; used as a context manager."""

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *error: object) -> None:  # noqa: B027 most sinks have nothing to close
        pass

    @abstractmethod
    def __call__(self, record: Event) -> None: ...


class MetricsFile(Logger):
    """Appends every record to `metrics.jsonl`, one line each, at once. A number that is none is written as null."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.metrics

    def __enter__(self) -> MetricsFile:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __call__(self, record: Event) -> None:
        fields = {name: _plain(value) for name, value in dataclasses.asdict(record).items()}
        self._file.write(json.dumps({"event": type(record).__name__.lower(), **fields}, allow_nan=False) + "\n")
        self._file.flush()


class SampleFiles(Logger):
    """Writes samples to `samples/step-*.txt`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder.samples

    def __call__(self, record: Event) -> None:
        if isinstance(record, Sampled):
            text = "\n\n".join(f"--- {i} ---\n{text}" for i, text in enumerate(record.texts, 1)) + "\n"
            (self.folder / f"step-{record.step:09d}.txt").write_text(text, encoding="utf-8")


class TensorBoard(Logger):
    """Losses, bounds, speed and samples for TensorBoard, under `tensorboard/`. Raises UserError where it is missing."""

    def __init__(self, folder: RunFolder) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("Tracking with TensorBoard needs: pip install 'textdiffusion[track]'") from None
        self.writer = SummaryWriter(str(folder.path / "tensorboard"))

    def __exit__(self, *error: object) -> None:
        self.writer.close()

    def __call__(self, record: Event) -> None:
        if isinstance(record, Logged):
            values = {"train/loss": record.loss, **{f"train/{name}": v for name, v in record.parts.items()}}
            values |= {"train/grad_norm": record.grad_norm, "train/rate": record.lr_scale}
            values |= {"speed/tokens_per_second": record.tokens_per_second}
        elif isinstance(record, Validated):
            values = {"valid/bits": record.bits, "valid/raw_bits": record.raw_bits}
        else:
            values = {}
        for name, value in values.items():
            self.writer.add_scalar(name, value, record.step)
        if isinstance(record, Sampled):
            self.writer.add_text("samples", "\n\n".join(f"    {text}" for text in record.texts), record.step)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case float() if not math.isfinite(value):  # JSON has no word for these
            return None
        case Path():
            return value.name
        case _:
            return value


TRACKERS = {"tensorboard": TensorBoard}


def tracker(name: str, folder: RunFolder) -> Logger:
    """The tracker called `name`. Raises UserError where there is none."""
    if name not in TRACKERS:
        raise UserError(f"track is {name!r}; it can be {', '.join(TRACKERS)}.")
    return TRACKERS[name](folder)


PAUSE = 10.0  # seconds between two plain lines, at least


class ProgressDisplay(Logger):
    """Loss, speed and time left; validations and samples as they come."""

    def __init__(self, training: Training, console: Console) -> None:
        self.training, self.console = training, console
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._printed = -PAUSE
        self._start: tuple[float, float] | None = None  # clock and progress when the first record came
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not self.live)
        self._task = self._bar.add_task("training", total=1.0, state="")

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, record: Event) -> None:
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
