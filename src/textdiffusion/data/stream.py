"""Shards as batches: a pure function of (seed, step, row), and evaluation windows in order."""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from ..core.batch import Batch
from ..core.errors import UserError
from .dataset import Resegment, Rows, hashed, permuted
from .shards import Shard
from .tokenizers.base import Tokenizer


class Stream:
    """A running stream. Training cuts it at an offset of each epoch's own, so that windows begin everywhere."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, shard: Shard, length: int, tokenizer: Tokenizer, *, seed: int, name: str, redraw: Resegment | None = None
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
        return Batch(tokens=torch.from_numpy(ids), row_ids=torch.from_numpy(numbers), global_batch_size=batch_size)

    def windows(self, rows: Rows) -> Batch:
        numbers = np.asarray(rows, dtype=np.int64)
        places = self._places(numbers)
        real = places < len(self.shard)
        places = np.minimum(places, len(self.shard) - 1)
        ids = np.where(real, self.shard.tokens[places], self.pad).astype(np.int64)
        counts = real if self.shard.counts is None else self.shard.counts[places] * real
        return Batch(
            tokens=torch.from_numpy(ids),
            valid_mask=None if real.all() else torch.from_numpy(real),
            row_ids=torch.from_numpy(numbers),
            num_chars=torch.from_numpy(counts.sum(1, dtype=np.int64)),
        )

    def positions(self, rows: Rows) -> np.ndarray:
        places = self._places(np.asarray(rows, dtype=np.int64))
        return places[places < len(self.shard)]

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        """Positions in the shard [b, l], beyond its end where the last window is padded."""
        return numbers[:, None] * self.length + np.arange(self.length)
