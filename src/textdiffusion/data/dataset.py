"""What a data set offers: training batches as a pure function of (seed, step, row), and evaluation windows in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ..core.batch import Batch
from .shards import Shard

Rows = range | Sequence[int] | np.ndarray
"""Row numbers or window numbers."""

Resegment = Callable[[np.ndarray, int], np.ndarray]
"""Maps tokens and an integer seed to another segmentation of the same text."""


@runtime_checkable
class Dataset(Protocol):
    """Windows of `length` tokens of one part of a corpus."""

    shard: Shard
    length: int
    notes: tuple[str, ...]
    """Messages for the user, such as how many examples were truncated."""

    def __len__(self) -> int:
        """The number of evaluation windows."""
        ...

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        """The training rows `rows` (of 0..batch_size-1) of the global batch of `step`; [len(rows), length].

        A row depends on the seed, its step and its number alone. Each epoch visits every window once, in its own order.
        """
        ...

    def windows(self, rows: Rows) -> Batch:
        """The evaluation windows with these numbers, with the number of characters of each; [len(rows), length]."""
        ...

    def positions(self, rows: Rows) -> np.ndarray:
        """Positions in the shard of the target tokens of these evaluation windows, in order, without padding."""
        ...

    def check_trainable(self) -> None:
        """Raises UserError if there is not a single training window."""
        ...


def evaluation_batches(dataset: Dataset, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """All windows in order, or those numbered `rows` (such as a rank's part); the last batch may be smaller."""
    numbers = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    for start in range(0, len(numbers), batch_size):
        yield dataset.windows(numbers[start : start + batch_size])
