"""One example per line or document: end token, explicit padding, several in a window on request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from .builtin.tasks import TASKS, exercise
from .config import TextConfig
from .dataset import Resegment, Rows, hashed, permuted
from .shards import Shard
from .tokenizers.base import Tokenizer


class Examples:
    """Rows of one example each, or of several (`packing`), in corpus order for evaluation.

    With mask=question a task's rows come with what is given, and characters count where something is to be filled in;
    so do rows that begin with a source. `labels` are the numbers of the examples' labels.
    Padding is not `real`, unless `model_padding`. Packed rows have `segments` 0, 1, ...; their padding is one more.
    """

    def __init__(
        self,
        shard: Shard,
        config: TextConfig,
        tokenizer: Tokenizer,
        *,
        seed: int,
        name: str,
        redraw: Resegment | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        assert shard.starts is not None
        assert tokenizer.pad_id is not None
        self.shard, self.length, self.seed, self.name, self.redraw = shard, config.length, seed, name, redraw
        self.pad, self.modelled, self.packed = tokenizer.pad_id, config.model_padding, config.packing
        self._tokenizer, self._source, self._labels = tokenizer, bool(config.source), labels
        self._task = exercise(config.data) if config.mask == "question" else None
        if config.mask == "question" and self._task is None:
            raise UserError(f"mask=question is for tasks ({', '.join(TASKS)}); {config.data} is none.")
        self._starts = shard.starts[:-1]
        lengths = np.diff(shard.starts)
        long = np.flatnonzero(lengths > self.length)
        if long.size and config.too_long == "error":
            raise UserError(
                f"Example {long[0] + 1} of {name} has {lengths[long[0]]} tokens with its end, more than a window of "
                f"{self.length} ({long.size} such): use a greater length, or text.too_long=truncate or drop."
            )
        what = {"truncate": "cut short", "drop": "left out", "error": ""}[config.too_long]
        self.notes = (f"{long.size} of {len(lengths)} examples are longer than {self.length} tokens and {what}",)[
            : long.size
        ]
        self._lengths = np.minimum(lengths, self.length)
        kept = np.flatnonzero(lengths <= self.length) if config.too_long == "drop" else np.arange(len(lengths))
        if self._source:
            ends = np.flatnonzero(np.asarray(shard.tokens) == tokenizer.end_id)
            before = ends[np.searchsorted(ends, self._starts)] + 1 - self._starts  # tokens of the source and its end
            room = before[kept] < self.length
            if full := int((~room).sum()):
                self.notes += (f"{full} of {len(lengths)} sources fill the window, and their examples are left out",)
            kept = kept[room]
        if not kept.size:
            raise UserError(f"No example of {name} fits a window of {self.length} tokens: use a greater length.")
        if self.packed:
            self._members, self._bounds = first_fit(kept, self._lengths, self.length)
        else:
            self._members, self._bounds = kept, np.arange(len(kept) + 1)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def check_trainable(self) -> None:
        """One example is enough."""

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        numbers = np.asarray(rows, dtype=np.int64)
        epoch, index = np.divmod(step * batch_size + numbers, len(self))
        places = permuted(index, len(self), self.seed, epoch)
        ids, real, segments, _ = self._laid_out(places)
        if self.redraw:
            draws = hashed(self.seed, step, numbers)
            for row, draw in enumerate(draws):
                example = self.redraw(ids[row, real[row]], int(draw))[: self.length]
                ids[row], real[row] = self.pad, False
                ids[row, : len(example)], real[row, : len(example)] = example, True
        return replace(self._batch(numbers, places, ids, real, segments, None), global_batch_size=batch_size)

    def windows(self, rows: Rows) -> Batch:
        numbers = np.asarray(rows, dtype=np.int64)
        ids, real, segments, chars = self._laid_out(numbers)
        return self._batch(numbers, numbers, ids, real, segments, chars)

    def positions(self, rows: Rows) -> np.ndarray:
        places = np.asarray(rows, dtype=np.int64)
        members, _ = self._members_of(places)
        found = _ranges(self._starts[members], self._lengths[members])
        if self._task is None and not self._source:
            return found
        ids, real, _, _ = self._laid_out(places)
        return found[~self._given(ids)[real]]

    def _members_of(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples in the rows at `places`, one row after the other, and how many each row has."""
        counts = self._bounds[places + 1] - self._bounds[places]
        return self._members[_ranges(self._bounds[places], counts)], counts

    def _batch(
        self,
        numbers: np.ndarray,
        places: np.ndarray,
        ids: np.ndarray,
        real: np.ndarray,
        segments: np.ndarray,
        chars: np.ndarray | None,
    ) -> Batch:
        given = self._given(ids) if self._task or self._source else None
        if self._task and given is not None and chars is not None:
            chars = (~given).sum(1)
        return Batch(
            tokens=torch.from_numpy(ids),
            valid_mask=None if self.modelled or real.all() else torch.from_numpy(real),
            condition_mask=None if given is None else torch.from_numpy(given),
            labels=None if self._labels is None else torch.from_numpy(self._labels[self._members[places]]),
            segment_ids=torch.from_numpy(segments) if self.packed else None,
            row_ids=torch.from_numpy(numbers),
            num_chars=None if chars is None else torch.from_numpy(chars),
        )

    def _given(self, ids: np.ndarray) -> np.ndarray:
        """A source and its end; or what a task says is there, ends and padding."""
        if self._task is None:
            ends = ids == self._tokenizer.end_id
            return ends.cumsum(1) - ends == 0
        given = np.ones(ids.shape, dtype=bool)
        for row, known in zip(given, ids, strict=True):
            shown = self._task.given(self._tokenizer.decode(known))
            row[: len(shown)] = shown
        return given

    def _laid_out(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Ids, real and segments [b, l] and characters [b] of the rows at `places`."""
        members, counts = self._members_of(places)
        lengths = self._lengths[members]
        row = np.repeat(np.arange(len(places)), counts)
        segment = _ranges(np.zeros_like(counts), counts)
        before = np.cumsum(lengths) - lengths
        row_before = before[np.cumsum(counts) - counts]  # tokens of all rows above
        sources = _ranges(self._starts[members], lengths)
        targets = _ranges(row * self.length + before - row_before[row], lengths)
        size = len(places) * self.length
        ids, real = np.full(size, self.pad, dtype=np.int64), np.zeros(size, dtype=bool)
        ids[targets], real[targets] = self.shard.tokens[sources], True
        segments = np.repeat(counts, self.length)
        segments[targets] = np.repeat(segment, lengths)
        chars = np.zeros(size, dtype=np.int64)
        chars[targets] = 1 if self.shard.counts is None else self.shard.counts[sources]
        shape = (len(places), self.length)
        return ids.reshape(shape), real.reshape(shape), segments.reshape(shape), chars.reshape(shape).sum(1)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each start, all in one array."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


OPEN = 64  # rows that may still take an example: bounds the time on corpora of millions


def first_fit(examples: np.ndarray, lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each example, in order, into the first open row with room.

    Returns the examples row by row, and where each row begins and the last ends. Of more than `OPEN` open rows the
    oldest is closed.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # row number and room left, oldest first
    for example in examples.tolist():
        need = int(lengths[example])
        for i, (row, room) in enumerate(open_rows):
            if need <= room:
                rows[row].append(example)
                open_rows[i] = (row, room - need)
                if room - need < 2:  # the shortest example is one token and its end
                    del open_rows[i]
                break
        else:
            rows.append([example])
            open_rows.append((len(rows) - 1, capacity - need))
            del open_rows[:-OPEN]
    bounds = np.cumsum([0] + [len(row) for row in rows])
    return np.array([example for row in rows for example in row], dtype=np.int64), bounds.astype(np.int64)
