"""Windows of one continuous stream of tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from ..core.batch import Batch
from .config import TextConfig
from .dataset import Dataset, Rows
from .shards import Shard
from .shuffling import hash_uint64, permute
from .tokenizers.base import Tokenizer


class Stream(Dataset):
    """A continuous stream. Each epoch cuts it into training windows at its own offset, so windows begin everywhere.

    A stream shorter than a window is one window with padding.
    """

    def __init__(self, shard: Shard, config: TextConfig, tokenizer: Tokenizer, *, seed: int, name: str) -> None:
        super().__init__(shard, config, tokenizer, seed=seed, name=name)
        # One window fewer than fit, so that the offset can vary by at least a whole window.
        self._windows_per_epoch = max(len(shard) // self.length - 1, 1)

    def __len__(self) -> int:
        return -(-len(self.shard) // self.length)

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        if len(self.shard) < self.length:
            batch = self.windows(np.zeros_like(rows))
            row_ids = torch.from_numpy(rows)
            return replace(batch, row_ids=row_ids, num_chars=None, lost_bits=None, global_batch_size=batch_size)
        epoch, index = np.divmod(step * batch_size + rows, self._windows_per_epoch)
        max_offset = len(self.shard.tokens) - self._windows_per_epoch * self.length
        offsets = (hash_uint64(self.seed, epoch) % np.uint64(max_offset + 1)).astype(np.int64)
        starts = offsets + self.length * permute(index, self._windows_per_epoch, self.seed, epoch)
        tokens = sliding_window_view(self.shard.tokens, self.length)[starts].astype(np.int64)
        if self.subword_sampling:
            for row, seed in enumerate(hash_uint64(self.seed, step, rows)):
                # Another segmentation may need fewer tokens, so it is sampled for more text than a window.
                sampled = self._resegment(self.shard.tokens[starts[row] : starts[row] + 2 * self.length], int(seed))
                if len(sampled) >= self.length:  # false only at the very end of the stream
                    tokens[row] = sampled[: self.length]
        return Batch(tokens=torch.from_numpy(tokens), row_ids=torch.from_numpy(rows), global_batch_size=batch_size)

    def windows(self, rows: Rows) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        tokens, valid_mask, num_chars = self._read(rows)
        return Batch(
            tokens=torch.from_numpy(tokens),
            valid_mask=None if valid_mask.all() else torch.from_numpy(valid_mask),
            row_ids=torch.from_numpy(rows),
            num_chars=torch.from_numpy(num_chars),
            lost_bits=self._lost_bits(rows),
        )

    def _positions(self, windows: np.ndarray) -> np.ndarray:
        return windows[:, None] * self.length + np.arange(self.length)
