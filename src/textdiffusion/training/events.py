"""What the training loop yields; displays, files and trackers consume these events."""

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
    """Mean losses since the last event of this kind, and time spent since the start of the run.

    `progress` runs from 0 to 1. `loss` and `parts` are in nats per token, `grad_norm` is the network's before clipping,
    `lr_scale` the fraction of the full learning rate. `cpu_seconds` (of all ranks) and `wall_seconds` are spent in
    training steps; `process_seconds` is all CPU time of one rank.
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
    """The bound on validation windows in bits per character (per token if the text has no character counts).

    `bits` is of the averaged weights, `raw_bits` of the optimizer's weights, each with its standard error (NaN for a
    single window). `dtype` is the precision of the backbone: bounds in different precisions differ slightly.
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
    """Samples from the averaged weights."""

    step: int
    texts: list[str]


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The last event. If not `complete`, `signal` stopped the run, which can be resumed."""

    step: int
    complete: bool
    signal: str | None
    best: Best | None


Event = Logged | Validated | Sampled | Saved | Finished


class StopSignal:
    """The name of the SIGINT or SIGTERM that arrived (None: neither did)."""

    def __init__(self) -> None:
        self.signal: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """Inside the block the first SIGINT or SIGTERM is recorded; a second one raises KeyboardInterrupt.

    Outside the main thread signals cannot be caught, and nothing is recorded.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def record(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number).name

    previous = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
