"""Rows of separate examples, one per line or document: end tokens, padding, packing, sources, labels and tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from .builtin.tasks import TASKS, parse_task
from .config import TextConfig
from .dataset import Resegment, Rows
from .packing import first_fit
from .shards import Shard
from .shuffling import hash_uint64, permute
from .tokenizers.base import Tokenizer


class _RowArrays(NamedTuple):
    """Tokens, valid positions and segment ids [b, l], and characters [b], of some rows."""

    tokens: np.ndarray
    valid_mask: np.ndarray
    segment_ids: np.ndarray
    num_chars: np.ndarray


class Examples:
    """Rows of one example each, or of several (`packing`), in corpus order for evaluation.

    The source of a text, or with mask=question everything a task's question shows, is in `condition_mask`; only the
    rest counts as characters. `labels` are the label ids of the examples. Padding is not in `valid_mask`, unless
    `model_padding`. Packed rows have segments 0, 1, ...; their padding is one more segment.
    """

    def __init__(
        self,
        shard: Shard,
        config: TextConfig,
        tokenizer: Tokenizer,
        *,
        seed: int,
        name: str,
        resegment: Resegment | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        assert shard.starts is not None
        assert tokenizer.pad_id is not None
        self.shard, self.length, self.seed, self.name, self.resegment = shard, config.length, seed, name, resegment
        self.pad_id, self.model_padding, self.packed = tokenizer.pad_id, config.model_padding, config.packing
        self._tokenizer, self._has_source, self._labels = tokenizer, bool(config.source), labels
        self._task = parse_task(config.data) if config.mask == "question" else None
        if config.mask == "question" and self._task is None:
            raise UserError(f"mask=question needs a task as data ({', '.join(TASKS)}), not {config.data}.")
        self._starts = shard.starts[:-1]
        lengths = np.diff(shard.starts)
        self._lengths = np.minimum(lengths, self.length)
        selected = self._fit_lengths(lengths, config)
        if self._has_source:
            selected = self._fit_sources(selected)
        if not selected.size:
            raise UserError(f"No example of {name} fits in a window of {self.length} tokens. Use a greater length.")
        if self.packed:
            self._order, self._bounds = first_fit(selected, self._lengths, self.length)
        else:
            self._order, self._bounds = selected, np.arange(len(selected) + 1)

    def _fit_lengths(self, lengths: np.ndarray, config: TextConfig) -> np.ndarray:
        """The numbers of the examples to use, after config.too_long; sets the notes."""
        long = np.flatnonzero(lengths > self.length)
        if long.size and config.too_long == "error":
            raise UserError(
                f"Example {long[0] + 1} of {self.name} has {lengths[long[0]]} tokens with its end, more than a window "
                f"of {self.length} ({long.size} examples are too long). Use a greater length, or "
                "text.too_long=truncate or drop."
            )
        action = "dropped" if config.too_long == "drop" else "truncated"
        note = f"{long.size} of {len(lengths)} examples are longer than {self.length} tokens and {action}"
        self.notes: tuple[str, ...] = (note,) if long.size else ()
        return np.flatnonzero(lengths <= self.length) if config.too_long == "drop" else np.arange(len(lengths))

    def _fit_sources(self, selected: np.ndarray) -> np.ndarray:
        """Those of the examples whose source leaves room for text."""
        ends = np.flatnonzero(np.asarray(self.shard.tokens) == self._tokenizer.end_id)
        source_lengths = ends[np.searchsorted(ends, self._starts)] + 1 - self._starts  # with the end token
        fits = source_lengths[selected] < self.length
        if count := int((~fits).sum()):
            self.notes += (f"{count} of {len(self._starts)} sources fill the window, and their examples are dropped",)
        return selected[fits]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def check_trainable(self) -> None:
        """One example is enough."""

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        epoch, index = np.divmod(step * batch_size + rows, len(self))
        windows = permute(index, len(self), self.seed, epoch)
        arrays = self._arrays(windows)
        if self.resegment:
            tokens, valid_mask, *_ = arrays
            for row, seed in enumerate(hash_uint64(self.seed, step, rows)):
                sampled = self.resegment(tokens[row, valid_mask[row]], int(seed))[: self.length]
                tokens[row], valid_mask[row] = self.pad_id, False
                tokens[row, : len(sampled)], valid_mask[row, : len(sampled)] = sampled, True
        return replace(self._batch(rows, windows, arrays), num_chars=None, global_batch_size=batch_size)

    def windows(self, rows: Rows) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        return self._batch(rows, rows, self._arrays(rows))

    def positions(self, rows: Rows) -> np.ndarray:
        rows = np.asarray(rows, dtype=np.int64)
        examples, _ = self._examples_in(rows)
        positions = _ranges(self._starts[examples], self._lengths[examples])
        if not self._task and not self._has_source:
            return positions
        tokens, valid_mask, *_ = self._arrays(rows)
        condition_mask = self._condition_mask(tokens)
        assert condition_mask is not None
        return positions[~condition_mask[valid_mask]]

    def _batch(self, row_ids: np.ndarray, windows: np.ndarray, arrays: _RowArrays) -> Batch:
        tokens, valid_mask, segment_ids, num_chars = arrays
        condition_mask = self._condition_mask(tokens)
        if self._task and condition_mask is not None:
            num_chars = (~condition_mask).sum(1)
        return Batch(
            tokens=torch.from_numpy(tokens),
            valid_mask=None if self.model_padding or valid_mask.all() else torch.from_numpy(valid_mask),
            condition_mask=None if condition_mask is None else torch.from_numpy(condition_mask),
            labels=None if self._labels is None else torch.from_numpy(self._labels[self._order[windows]]),
            segment_ids=torch.from_numpy(segment_ids) if self.packed else None,
            row_ids=torch.from_numpy(row_ids),
            num_chars=torch.from_numpy(num_chars),
        )

    def _condition_mask(self, tokens: np.ndarray) -> np.ndarray | None:
        """Sources with their end tokens; for a task, what its question shows, end tokens and padding. None: nothing."""
        if self._task:
            condition_mask = np.ones(tokens.shape, dtype=bool)
            for mask, row in zip(condition_mask, tokens, strict=True):
                shown = self._task.condition_mask(self._tokenizer.decode(row))
                mask[: len(shown)] = shown
            return condition_mask
        if self._has_source:
            ends = tokens == self._tokenizer.end_id
            return ends.cumsum(1) - ends == 0
        return None

    def _examples_in(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples in these windows, one window after the other, and how many each window has."""
        counts = self._bounds[windows + 1] - self._bounds[windows]
        return self._order[_ranges(self._bounds[windows], counts)], counts

    def _arrays(self, windows: np.ndarray) -> _RowArrays:
        examples, counts = self._examples_in(windows)
        lengths = self._lengths[examples]
        row = np.repeat(np.arange(len(windows)), counts)  # of each example
        segment = _ranges(np.zeros_like(counts), counts)
        offset = np.cumsum(lengths) - lengths  # tokens of all examples before
        row_offset = offset[np.cumsum(counts) - counts]  # tokens of all rows before
        source = _ranges(self._starts[examples], lengths)  # positions in the shard
        target = _ranges(row * self.length + offset - row_offset[row], lengths)  # and in the flattened rows
        size = len(windows) * self.length
        tokens, valid_mask = np.full(size, self.pad_id, dtype=np.int64), np.zeros(size, dtype=bool)
        tokens[target], valid_mask[target] = self.shard.tokens[source], True
        segment_ids = np.repeat(counts, self.length)
        segment_ids[target] = np.repeat(segment, lengths)
        chars = np.zeros(size, dtype=np.int64)
        chars[target] = 1 if self.shard.char_counts is None else self.shard.char_counts[source]
        shape = (len(windows), self.length)
        return _RowArrays(
            tokens.reshape(shape), valid_mask.reshape(shape), segment_ids.reshape(shape), chars.reshape(shape).sum(1)
        )


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ..., start + length - 1 for each start, in one array."""
    offsets = np.cumsum(lengths) - lengths
    return np.repeat(starts - offsets, lengths) + np.arange(int(lengths.sum()))
