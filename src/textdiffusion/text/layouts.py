"""Shards as batches: a pure function of (seed, step, row), and evaluation windows in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from textdiffusion.batch import Batch
from textdiffusion.errors import UserError
from textdiffusion.text.config import TextConfig
from textdiffusion.text.orders import hashed, permuted
from textdiffusion.text.shards import Shard
from textdiffusion.text.tokenizers import Tokenizer

Redraw = Callable[[np.ndarray, int], np.ndarray]
"""Another segmentation of the text of some ids, drawn with an integer seed."""

Rows = range | Sequence[int] | np.ndarray


@runtime_checkable
class Dataset(Protocol):
    """Windows of `length` tokens of one part of a corpus."""

    shard: Shard
    length: int
    notes: tuple[str, ...]
    """What a user should know, such as how many examples were cut short."""

    def __len__(self) -> int:
        """Evaluation windows."""
        ...

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        """Training rows `rows` (of 0..batch_size-1) of the global batch of `step`, by (seed, step, row) alone.

        Each epoch sees every window once, in an order of its own.
        """
        ...

    def windows(self, rows: Rows) -> Batch:
        """The evaluation windows of these numbers, with the characters of each."""
        ...

    def positions(self, rows: Rows) -> np.ndarray:
        """Where in the shard the tokens of these evaluation windows are, in order; padding has no place."""
        ...

    def check_trainable(self) -> None:
        """Raises UserError where not one training window can be had."""
        ...


def evaluation_batches(dataset: Dataset, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """All windows in order, or those numbered `rows` (a rank's share); the last batch may be smaller."""
    numbers = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    for start in range(0, len(numbers), batch_size):
        yield dataset.windows(numbers[start : start + batch_size])


def open_dataset(
    shard: Shard, config: TextConfig, tokenizer: Tokenizer, *, seed: int, name: str, labels: np.ndarray | None = None
) -> Dataset:
    """The data set of a shard in the configured layout. Raises UserError where the shard does not suit it."""
    from textdiffusion.text.examples import Examples

    redraw = _redraw(tokenizer, config.subword_sampling) if config.subword_sampling else None
    if config.layout == "stream":
        return Stream(shard, config.length, tokenizer, seed=seed, name=name, redraw=redraw)
    return Examples(shard, config, tokenizer, seed=seed, name=name, redraw=redraw, labels=labels)


def _redraw(tokenizer: Tokenizer, alpha: float) -> Redraw:
    from textdiffusion.text.pieces import Pieces

    if not isinstance(tokenizer, Pieces):
        raise UserError(f"subword_sampling needs a SentencePiece tokenizer; this one is {tokenizer.kind}.")
    return lambda ids, seed: tokenizer.redraw(ids, alpha, seed)


class Stream:
    """A running stream. Training cuts it at an offset of each epoch's own, so that windows begin everywhere."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, shard: Shard, length: int, tokenizer: Tokenizer, *, seed: int, name: str, redraw: Redraw | None = None
    ) -> None:
        self.shard, self.length, self.seed, self.name, self.redraw = shard, length, seed, name, redraw
        self.pad = tokenizer.pad_id or 0
        # One window fewer than fit, so that there is room to shift the cuts by at least a whole window.
        self._per_epoch = max(len(shard) // length - 1, 1)

    def __len__(self) -> int:
        return -(-len(self.shard) // self.length)

    def check_trainable(self) -> None:
        if len(self.shard) < self.length:
            raise UserError(
                f"{self.name[0].upper()}{self.name[1:]} has {len(self.shard)} tokens, fewer than one window of "
                f"{self.length}: give more text, or a smaller length."
            )

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        numbers = np.asarray(rows, dtype=np.int64)
        epoch, index = np.divmod(step * batch_size + numbers, self._per_epoch)
        slack = len(self.shard) - self._per_epoch * self.length
        shift = hashed(self.seed, epoch) % np.uint64(slack + 1)
        starts = shift.astype(np.int64) + self.length * permuted(index, self._per_epoch, self.seed, epoch)
        ids = sliding_window_view(self.shard.tokens, self.length)[starts].astype(np.int64)
        if self.redraw:
            for row, draw in enumerate(hashed(self.seed, step, numbers)):
                # Another segmentation may need fewer tokens, so it is drawn for more text than a window.
                other = self.redraw(self.shard.tokens[starts[row] : starts[row] + 2 * self.length], int(draw))
                if len(other) >= self.length:  # not so only at the very end of the stream
                    ids[row] = other[: self.length]
        return Batch(ids=torch.from_numpy(ids), rows=torch.from_numpy(numbers), total=batch_size)

    def windows(self, rows: Rows) -> Batch:
        numbers = np.asarray(rows, dtype=np.int64)
        places = self._places(numbers)
        real = places < len(self.shard)
        places = np.minimum(places, len(self.shard) - 1)
        ids = np.where(real, self.shard.tokens[places], self.pad).astype(np.int64)
        counts = real if self.shard.counts is None else self.shard.counts[places] * real
        return Batch(
            ids=torch.from_numpy(ids),
            real=None if real.all() else torch.from_numpy(real),
            rows=torch.from_numpy(numbers),
            chars=torch.from_numpy(counts.sum(1, dtype=np.int64)),
        )

    def positions(self, rows: Rows) -> np.ndarray:
        places = self._places(np.asarray(rows, dtype=np.int64))
        return places[places < len(self.shard)]

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        """Positions in the shard [b, l], beyond its end where the last window is padded."""
        return numbers[:, None] * self.length + np.arange(self.length)
