"""Windows of one continuous stream of tokens."""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from ..core.batch import Batch
from ..core.errors import UserError
from .dataset import Resegment, Rows
from .shards import Shard
from .shuffling import hash_uint64, permute
from .tokenizers.base import Tokenizer


class Stream:
    """A continuous stream. Each epoch cuts it into training windows at its own offset, so windows begin everywhere."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        shard: Shard,
        length: int,
        tokenizer: Tokenizer,
        *,
        seed: int,
        name: str,
        resegment: Resegment | None = None,
    ) -> None:
        self.shard, self.length, self.seed, self.name, self.resegment = shard, length, seed, name, resegment
        self.pad_id = tokenizer.pad_id or 0
        # One window fewer than fit, so that the offset can vary by at least a whole window.
        self._windows_per_epoch = max(len(shard) // length - 1, 1)

    def __len__(self) -> int:
        return -(-len(self.shard) // self.length)

    def check_trainable(self) -> None:
        if len(self.shard) < self.length:
            raise UserError(
                f"{self.name[0].upper()}{self.name[1:]} has {len(self.shard)} tokens, fewer than one window of "
                f"{self.length}. Use more text or a smaller length."
            )

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        epoch, index = np.divmod(step * batch_size + rows, self._windows_per_epoch)
        max_offset = len(self.shard) - self._windows_per_epoch * self.length
        offsets = (hash_uint64(self.seed, epoch) % np.uint64(max_offset + 1)).astype(np.int64)
        starts = offsets + self.length * permute(index, self._windows_per_epoch, self.seed, epoch)
        tokens = sliding_window_view(self.shard.tokens, self.length)[starts].astype(np.int64)
        if self.resegment:
            for row, seed in enumerate(hash_uint64(self.seed, step, rows)):
                # Another segmentation may need fewer tokens, so it is sampled for more text than a window.
                sampled = self.resegment(self.shard.tokens[starts[row] : starts[row] + 2 * self.length], int(seed))
                if len(sampled) >= self.length:  # false only at the very end of the stream
                    tokens[row] = sampled[: self.length]
        return Batch(tokens=torch.from_numpy(tokens), row_ids=torch.from_numpy(rows), global_batch_size=batch_size)

    def windows(self, rows: Rows) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        positions = self._positions(rows)
        valid_mask = positions < len(self.shard)
        positions = np.minimum(positions, len(self.shard) - 1)
        tokens = np.where(valid_mask, self.shard.tokens[positions], self.pad_id).astype(np.int64)
        char_counts = valid_mask
        if self.shard.char_counts is not None:
            char_counts = self.shard.char_counts[positions] * valid_mask
        return Batch(
            tokens=torch.from_numpy(tokens),
            valid_mask=None if valid_mask.all() else torch.from_numpy(valid_mask),
            row_ids=torch.from_numpy(rows),
            num_chars=torch.from_numpy(char_counts.sum(1, dtype=np.int64)),
        )

    def positions(self, rows: Rows) -> np.ndarray:
        positions = self._positions(np.asarray(rows, dtype=np.int64))
        return positions[positions < len(self.shard)]

    def _positions(self, rows: np.ndarray) -> np.ndarray:
        """Positions in the shard [b, l]; those beyond its end are the padding of the last window."""
        return rows[:, None] * self.length + np.arange(self.length)
