"""Texts in memory as evaluation windows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from ..data import templates
from ..data.conditions import encode_source, with_label
from ..data.config import TextConfig
from ..data.normalisers import normalise
from ..data.tokenizers.base import Tokenizer
from ..data.tokenizers.losses import encode_charged


@dataclass(frozen=True)
class _Row:
    """One window: token ids, the characters of each token, its lost bits, and which tokens are conditions."""

    tokens: np.ndarray
    num_chars: np.ndarray
    lost_bits: np.ndarray
    is_condition: np.ndarray

    def __getitem__(self, part: slice) -> _Row:
        return _Row(self.tokens[part], self.num_chars[part], self.lost_bits[part], self.is_condition[part])

    def __add__(self, other: _Row) -> _Row:
        return _Row(*(np.append(a, b) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class Texts:
    """Texts cut into windows of `config.length` tokens, each text separately, normalised and ended as in training.

    Characters are counted after normalising. Without modelled padding, windows are as long as the longest text.

    A `prefix` precedes each text as a condition; only as much of its end as the window has room for is used. `given` is
    a template that the texts fill, as with `infill`: only its gaps are measured. `source` and `label` are the
    conditions of a conditional run, the same for all texts. What the tokenizer loses of a text is charged to its
    window (`tokenizers.losses`).

    Raises UserError for a text that is empty, for one that leaves no room for a prefix, and for one that does not fill
    the template.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        config: TextConfig,
        *,
        prefix: str = "",
        given: str = "",
        source: str | None = None,
        label: str | int | None = None,
    ) -> None:
        source_tokens = encode_source(source, config, tokenizer)
        self._with_label = partial(with_label, text=config, label=label)
        window_length, config = config.length, replace(config, length=config.length - len(source_tokens))
        self.pad = tokenizer.pad_id or 0
        self.model_padding = config.model_padding
        rows: list[_Row] = []
        if prefix and given:
            raise UserError("A prefix is part of the template; give one of the two.")
        for text in texts:
            if given:
                rows.append(_fill(text, given, tokenizer, config))
                continue
            row = _encode(text, tokenizer, config)
            if prefix:
                rows.append(_with_prefix(prefix, row, tokenizer, config))
            else:
                starts = range(0, len(row.tokens), config.length)
                rows += [row[start : start + config.length] for start in starts]
        self._rows = [_with_source(source_tokens, row) for row in rows]
        longest = max(len(row.tokens) for row in self._rows)
        self.length = max(window_length, longest) if self.model_padding else longest

    def __len__(self) -> int:
        return len(self._rows)

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The windows with these numbers, in the order of the texts."""
        selected = [self._rows[row] for row in rows]
        tokens = np.full((len(selected), self.length), self.pad, dtype=np.int64)
        valid_mask, condition_mask = np.zeros(tokens.shape, dtype=bool), np.zeros(tokens.shape, dtype=bool)
        for i, row in enumerate(selected):
            index = i, slice(len(row.tokens))
            tokens[index], valid_mask[index], condition_mask[index] = row.tokens, True, row.is_condition
        lost_bits = [float(row.lost_bits[~row.is_condition].sum()) for row in selected]
        batch = Batch(
            tokens=torch.from_numpy(tokens),
            valid_mask=None if self.model_padding or valid_mask.all() else torch.from_numpy(valid_mask),
            condition_mask=torch.from_numpy(condition_mask) if condition_mask.any() else None,
            row_ids=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
            num_chars=torch.tensor([int(row.num_chars[~row.is_condition].sum()) for row in selected]),
            lost_bits=torch.tensor(lost_bits) if any(lost_bits) else None,
        )
        return self._with_label(batch)


def _encode(text: str, tokenizer: Tokenizer, config: TextConfig) -> _Row:
    text = normalise(config.normaliser, text)
    if not text:
        raise UserError("An empty text has no bits per character.")
    row = _row_of(text, tokenizer)
    if config.layout != "stream":
        assert tokenizer.end_id is not None
        # A line ends in a line break, which is a character; the end of a document is not.
        end = np.array([tokenizer.end_id])
        row += _Row(end, np.array([int(config.layout == "lines")]), np.zeros(1), np.zeros(1, dtype=bool))
    return row


def _with_prefix(prefix: str, row: _Row, tokenizer: Tokenizer, config: TextConfig) -> _Row:
    max_tokens = config.length - len(row.tokens)
    if max_tokens < 1:
        raise UserError(
            f"A text of {len(row.tokens)} tokens leaves no room for a prefix in a window of {config.length}; "
            "score it without."
        )
    return _given(tokenizer.encode(normalise(config.normaliser, prefix))[-max_tokens:]) + row


def _with_source(source: np.ndarray, row: _Row) -> _Row:
    return _given(source) + row


def _given(tokens: np.ndarray) -> _Row:
    """Conditions, whose characters are not measured."""
    return _Row(tokens, np.zeros_like(tokens), np.zeros(len(tokens)), np.ones(len(tokens), dtype=bool))


def _fill(text: str, template: str, tokenizer: Tokenizer, config: TextConfig) -> _Row:
    if templates.OPEN in templates.parse(template):
        raise UserError(f"Every gap of the template {template!r} needs its number of tokens: [MASK:5].")
    blank = templates.batch(
        [template],
        tokenizer,
        ended=config.layout != "stream",
        padded_to=config.length if config.model_padding else 0,
        normaliser=config.normaliser,
    )
    assert blank.condition_mask is not None
    blank_tokens, is_condition = blank.tokens[0].numpy(), blank.condition_mask[0].numpy()
    row = _row_of(normalise(config.normaliser, text), tokenizer)
    size = len(templates.encode(template, tokenizer, normaliser=config.normaliser)[0])
    fits = len(row.tokens) == size and not (row.tokens != blank_tokens[:size])[is_condition[:size]].any()
    if not fits or not _is_filled(text, template, config):
        raise UserError(f"{text!r} does not fill the template {template!r}: it may differ in the gaps only.")
    return replace(row + _given(blank_tokens[size:]), is_condition=is_condition)


def _is_filled(text: str, template: str, config: TextConfig) -> bool:
    """Whether the text has the given text of the template, which one token for many words would hide."""
    pieces = templates.parse(template)
    given = (re.escape(normalise(config.normaliser, each)) if isinstance(each, str) else ".*" for each in pieces)
    return re.fullmatch("".join(given), normalise(config.normaliser, text), re.DOTALL) is not None


def _row_of(text: str, tokenizer: Tokenizer) -> _Row:
    tokens, num_chars, loss = encode_charged(tokenizer, text)
    return _Row(
        tokens,
        np.ones_like(tokens) if num_chars is None else num_chars,
        np.zeros(len(tokens)) if loss is None else loss.bits,
        np.zeros(len(tokens), dtype=bool),
    )
