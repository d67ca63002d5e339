"""What the training loop yields. Displays, files and trackers are consumers of these."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ..storage.checkpoint import Best


@dataclass(frozen=True)
class Logged:
    """The mean of the losses since the last such record, and what has been spent since the beginning of the run.

    `progress` runs from 0 to 1. `loss` and `parts` are in nats per token, `grad_norm` is the network's before clipping.
    `cpu_seconds` (of all ranks) and `wall_seconds` are spent in training steps, `process_seconds` is all CPU time.
    """

    step: int
    progress: float
    loss: float
    parts: dict[str, float]
    grad_norm: float
    lr_scale: float
    tokens: int
    tokens_per_second: float
    cpu_seconds: float
    wall_seconds: float
    process_seconds: float


@dataclass(frozen=True)
class Validated:
    """The bound on validation windows in bits per character (per token where the text has no character counts).

    `bits` is of the averaged weights, `raw_bits` of the weights themselves, each with its standard error (NaN for a
    single window). `dtype` is what features were computed in: bounds in different ones differ a little.
    """

    step: int
    bits: float
    error: float
    raw_bits: float
    raw_error: float
    windows: int
    dtype: str
    best: bool
    cpu_seconds: float


@dataclass(frozen=True)
class Sampled:
    """Samples of the averaged weights."""

    step: int
    texts: list[str]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The last record. `complete`: the run reached its end; otherwise `signal` stopped it and it can be resumed."""

    step: int
    complete: bool
    signal: str | None
    best: Best | None


Event = Logged | Validated | Sampled | Saved | Finished


class StopSignal:
    """Whether SIGINT or SIGTERM has come, and which."""

    def __init__(self) -> None:
        self.signal: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """The first SIGINT or SIGTERM inside the block is noted; a second raises KeyboardInterrupt.

    Outside the main thread signals cannot be caught, and nothing is noted.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
