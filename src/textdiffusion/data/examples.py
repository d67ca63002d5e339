"""Rows of separate examples, one per line or document: end tokens, padding, packing, sources, labels and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from .builtin.tasks import TASKS, parse_task
from .config import TextConfig
from .dataset import Dataset, Rows
from .packing import first_fit
from .shards import Shard
from .shuffling import hash_uint64, permute
from .tokenizers.base import Tokenizer


class Examples(Dataset):
    """Rows of one example each, or of several (`packing`), in corpus order for evaluation.

    What precedes a text (its source or messages), or with mask=question everything a task's question shows, is in
    `condition_mask`; only the rest counts as characters. `labels` are the label ids of the examples, `prompt_lengths`
    how many tokens precede their texts. Padding is not in `valid_mask`, unless `model_padding`. Packed rows have
    segments 0, 1, ...; their padding is one more segment.
    """

    def __init__(
        self,
        shard: Shard,
        config: TextConfig,
        tokenizer: Tokenizer,
        *,
        seed: int,
        name: str,
        labels: np.ndarray | None = None,
        prompt_lengths: np.ndarray | None = None,
    ) -> None:
        super().__init__(shard, config, tokenizer, seed=seed, name=name)
        assert shard.starts is not None
        assert tokenizer.pad_id is not None
        self.model_padding, self.packed = config.model_padding, config.packing
        self._is_source = config.has_source
        self._labels, self._prompt_lengths = labels, prompt_lengths
        self._task = parse_task(config.data) if config.mask == "question" else None
        if config.mask == "question" and self._task is None:
            raise UserError(f"mask=question needs a task as data ({', '.join(TASKS)}), not {config.data}.")
        self._bounds = shard.starts  # of the examples in the shard
        lengths = np.diff(shard.starts)
        examples = self._fit_lengths(lengths, config.too_long)
        if prompt_lengths is not None:
            examples = self._fit_prompts(examples, prompt_lengths)
        if not examples.size:
            raise UserError(f"No example of {name} fits in a window of {self.length} tokens. Use a greater length.")
        self._lengths = np.minimum(lengths + self._learned_padding(len(lengths)), self.length)
        # Window i has the examples order[row_bounds[i]:row_bounds[i + 1]].
        self._order, self._row_bounds = examples, np.arange(len(examples) + 1)
        if self.packed:
            self._order, self._row_bounds = first_fit(examples, self._lengths, self.length)

    def _learned_padding(self, count: int) -> np.ndarray | int:
        """Tokens of padding that each packed answer learns to end with: 0 to a quarter of a window, by its number.

        Without them the number of masks would tell a model where the answer ends, which nothing does in sampling.
        """
        if not self.packed or self._prompt_lengths is None:
            return 0
        return (hash_uint64(self.seed, 0, np.arange(count)) % np.uint64(self.length // 4 + 1)).astype(np.int64)

    def _fit_lengths(self, lengths: np.ndarray, too_long: str) -> np.ndarray:
        """The numbers of the examples to use; adds a note on long ones."""
        fits = lengths <= self.length
        if fits.all():
            return np.arange(len(lengths))
        count, first = int((~fits).sum()), fits.argmin()
        if too_long == "error":
            raise UserError(
                f"Example {first + 1} of {self.name} has {lengths[first]} tokens with its end, more than a window "
                f"of {self.length} ({count} examples are too long). Use a greater length, or "
                "text.too_long=truncate or drop."
            )
        action = "dropped" if too_long == "drop" else "truncated"
        self.notes += (f"{count} of {len(lengths)} examples are longer than {self.length} tokens and {action}",)
        return np.flatnonzero(fits | (too_long != "drop"))

    def _fit_prompts(self, examples: np.ndarray, prompt_lengths: np.ndarray) -> np.ndarray:
        """The examples whose source or messages leave space for text."""
        fits = prompt_lengths[examples] < self.length
        if count := int((~fits).sum()):
            name = "sources" if self._is_source else "conversations"
            self.notes += (f"{count} of {len(examples)} {name} fill the window, and their examples are dropped",)
        return examples[fits]

    def __len__(self) -> int:
        return len(self._row_bounds) - 1

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        rows = np.asarray(rows, dtype=np.int64)
        epoch, index = np.divmod(step * batch_size + rows, len(self))
        seeds = hash_uint64(self.seed, step, rows).tolist() if self.subword_sampling else []
        batch = self._batch(permute(index, len(self), self.seed, epoch), seeds)
        return replace(
            batch, row_ids=torch.from_numpy(rows), num_chars=None, lost_bits=None, global_batch_size=batch_size
        )

    def windows(self, rows: Rows) -> Batch:
        return self._batch(np.asarray(rows, dtype=np.int64))

    def _batch(self, windows: np.ndarray, seeds: Sequence[int] = ()) -> Batch:
        """The examples of these windows, with other segmentations by the `seeds` of the rows if there are any."""
        tokens, valid_mask, num_chars = self._read(windows)
        segment_ids = self._segment_ids(windows) if self.packed else None
        if segment_ids is not None:
            valid_mask = segment_ids < np.diff(self._row_bounds)[windows, None]
        for row, seed in enumerate(seeds):
            sampled = self._resegment(tokens[row, valid_mask[row]], seed)[: self.length]
            tokens[row], valid_mask[row] = self.pad_id, False
            tokens[row, : len(sampled)], valid_mask[row, : len(sampled)] = sampled, True
        condition_mask = self._condition_mask(tokens, windows)
        if self._task and condition_mask is not None:
            num_chars = (~condition_mask).sum(1)
        return Batch(
            tokens=torch.from_numpy(tokens),
            valid_mask=None if self.model_padding or valid_mask.all() else torch.from_numpy(valid_mask),
            condition_mask=None if condition_mask is None else torch.from_numpy(condition_mask),
            labels=None if self._labels is None else torch.from_numpy(self._labels[self._order[windows]]),
            segment_ids=None if segment_ids is None else torch.from_numpy(segment_ids),
            row_ids=torch.from_numpy(windows),
            num_chars=torch.from_numpy(num_chars),
            lost_bits=None if self._task else self._lost_bits(windows),
        )

    def _condition_mask(self, tokens: np.ndarray, windows: np.ndarray) -> np.ndarray | None:
        """What precedes texts; for a task, what its question shows, end tokens and padding. None: nothing."""
        if self._task:
            condition_mask = np.ones(tokens.shape, dtype=bool)
            for mask, row in zip(condition_mask, tokens, strict=True):
                shown = self._task.condition_mask(self.tokenizer.decode(row))
                mask[: len(shown)] = shown
            return condition_mask
        if self._prompt_lengths is None:
            return None
        positions = self._positions(windows)
        examples = np.minimum(np.searchsorted(self._bounds, positions, side="right"), len(self._bounds) - 1) - 1
        is_text = positions - self._bounds[examples] >= self._prompt_lengths[examples]
        return ~is_text & (positions < len(self.shard))

    def _positions(self, windows: np.ndarray) -> np.ndarray:
        positions = np.full((len(windows), self.length), len(self.shard))
        for row, window in zip(positions, windows.tolist(), strict=True):
            for example, start, end in self._spans(window):
                end = min(end, start + int(self._bounds[example + 1] - self._bounds[example]))
                row[start:end] = self._bounds[example] + np.arange(end - start)
        return positions

    def _segment_ids(self, windows: np.ndarray) -> np.ndarray:
        """0, 1, ... for the examples of each window, one more for its padding [b, l]."""
        segment_ids = np.empty((len(windows), self.length), dtype=np.int64)
        for row, window in zip(segment_ids, windows.tolist(), strict=True):
            row[:] = self._row_bounds[window + 1] - self._row_bounds[window]
            for number, (_, start, end) in enumerate(self._spans(window)):
                row[start:end] = number
        return segment_ids

    def _spans(self, window: int) -> Iterator[tuple[int, int, int]]:
        """The examples of a window, with the positions where each begins and ends."""
        end = 0
        for example in self._order[self._row_bounds[window] : self._row_bounds[window + 1]].tolist():
            start, end = end, end + int(self._lengths[example])
            yield example, start, end
