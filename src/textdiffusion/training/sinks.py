"""Consumers of the loop's records: the run's files and trackers."""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..errors import UserError
from .folder import RunFolder
from .records import Logged, Record, Sampled, Validated


class Sink(ABC):
    """Takes records one by one; used as a context manager."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *error: object) -> None:  # noqa: B027 most sinks have nothing to close
        pass

    @abstractmethod
    def __call__(self, record: Record) -> None: ...


class Metrics(Sink):
    """Appends every record to `metrics.jsonl`, one line each, at once. A number that is none is written as null."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.metrics

    def __enter__(self) -> Metrics:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __call__(self, record: Record) -> None:
        fields = {name: _plain(value) for name, value in dataclasses.asdict(record).items()}
        self._file.write(json.dumps({"event": type(record).__name__.lower(), **fields}, allow_nan=False) + "\n")
        self._file.flush()


class Samples(Sink):
    """Writes samples to `samples/step-*.txt`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder.samples

    def __call__(self, record: Record) -> None:
        if isinstance(record, Sampled):
            text = "\n\n".join(f"--- {i} ---\n{text}" for i, text in enumerate(record.texts, 1)) + "\n"
            (self.folder / f"step-{record.step:09d}.txt").write_text(text, encoding="utf-8")


class TensorBoard(Sink):
    """Losses, bounds, speed and samples for TensorBoard, under `tensorboard/`. Raises UserError where it is missing."""

    def __init__(self, folder: RunFolder) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("Tracking with TensorBoard needs: pip install 'textdiffusion[track]'") from None
        self.writer = SummaryWriter(str(folder.path / "tensorboard"))

    def __exit__(self, *error: object) -> None:
        self.writer.close()

    def __call__(self, record: Record) -> None:
        if isinstance(record, Logged):
            values = {"train/loss": record.loss, **{f"train/{name}": v for name, v in record.parts.items()}}
            values |= {"train/grad_norm": record.grad_norm, "train/rate": record.rate}
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


def tracker(name: str, folder: RunFolder) -> Sink:
    """The tracker called `name`. Raises UserError where there is none."""
    if name not in TRACKERS:
        raise UserError(f"track is {name!r}; it can be {', '.join(TRACKERS)}.")
    return TRACKERS[name](folder)
