"""Windows of one part of a corpus: training batches as a pure function of (seed, step, row), evaluation in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from .config import TextConfig
from .shards import Shard
from .tokenizers.base import Tokenizer
from .tokenizers.sentencepiece import SentencePiece

Rows = range | Sequence[int] | np.ndarray
"""Row numbers or window numbers."""


class Dataset(ABC):
    """Windows of `length` tokens. `name` is that of the part, for errors, and `notes` are messages for the user."""

    notes: tuple[str, ...] = ()

    def __init__(self, shard: Shard, config: TextConfig, tokenizer: Tokenizer, *, seed: int, name: str) -> None:
        if config.subword_sampling and not (isinstance(tokenizer, SentencePiece) and tokenizer.log_probs):
            raise UserError("subword_sampling needs a SentencePiece tokenizer with a unigram model.")
        self.shard, self.length, self.seed, self.name, self.tokenizer = shard, config.length, seed, name, tokenizer
        self.pad_id, self.subword_sampling = tokenizer.pad_id or 0, config.subword_sampling

    @abstractmethod
    def __len__(self) -> int:
        """The number of evaluation windows."""

    @abstractmethod
    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        """The training rows `rows` (of 0..batch_size-1) of the global batch of `step`; [len(rows), length].

        A row depends on the seed, its step and its number alone. Each epoch visits every window once, in its own order.
        """

    @abstractmethod
    def _positions(self, windows: np.ndarray) -> np.ndarray:
        """Positions in the shard of the tokens of these windows [b, l]; at least `len(shard)` for padding."""

    @abstractmethod
    def windows(self, rows: Rows) -> Batch:
        """The evaluation windows with these numbers, with the number of characters of each; [len(rows), length]."""

    def positions(self, rows: Rows) -> np.ndarray:
        """Positions in the shard of the target tokens of these evaluation windows, in order, without padding."""
        positions = self._positions(np.asarray(rows, dtype=np.int64))
        return positions[self.windows(rows).target_mask.numpy() & (positions < len(self.shard))]

    def _read(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [b, l], which of them are not padding [b, l], and the number of characters [b] of these windows."""
        positions = self._positions(windows)
        valid_mask = positions < len(self.shard)
        positions = np.minimum(positions, len(self.shard) - 1)
        tokens = np.where(valid_mask, self.shard.tokens[positions], self.pad_id).astype(np.int64)
        char_counts = valid_mask if self.shard.char_counts is None else self.shard.char_counts[positions] * valid_mask
        return tokens, valid_mask, char_counts.sum(1, dtype=np.int64)

    def _lost_bits(self, windows: np.ndarray) -> torch.Tensor | None:
        """The bits of characters that the tokenizer lost, per window [b]; None: none in this part."""
        if not self.shard.header.lost:
            return None
        positions = self._positions(windows)
        bits = self.shard.lost_bits_at(positions) * (positions < len(self.shard))
        return torch.from_numpy(bits.sum(1).astype(np.float32))

    def _resegment(self, tokens: np.ndarray, seed: int) -> np.ndarray:
        """Another segmentation of the same text."""
        assert isinstance(self.tokenizer, SentencePiece)
        return self.tokenizer.resegment(tokens, self.subword_sampling, seed)


def evaluation_batches(dataset: Dataset, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """All windows in order, or those numbered `rows` (such as a rank's part); the last batch may be smaller."""
    numbers = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    for start in range(0, len(numbers), batch_size):
        yield dataset.windows(numbers[start : start + batch_size])
