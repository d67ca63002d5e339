"""Texts in memory as evaluation windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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


class Texts:
    """Texts cut into windows of `config.length` tokens, each text for itself, normalised and ended as in training;
    characters are counted after normalising. Without modelled padding windows are as long as the longest text in them.

    A `prefix` is given before each text: as much of its end as the window has room for. `given` is a template that the
    texts fill as `infill` would; then what is in its gaps is all that is measured, and nothing is normalised. `source`
    and `label` are what a conditional run is told of all texts.

    Raises UserError for a text that is empty or that the tokenizer cannot read, for one that a prefix leaves no room
    for, and for one that does not fit the template.
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
        label: str | None = None,
    ) -> None:
        first = encode_source(source, config, tokenizer)
        self.labelled = partial(with_label, text=config, label=label)
        whole, config = config.length, replace(config, length=config.length - len(first))
        self.length, self.pad = config.length, tokenizer.pad_id or 0
        self.modelled = config.model_padding
        self._rows: list[_Row] = []
        if prefix and given:
            raise UserError("A prefix is part of the template; give one of the two.")
        for text in texts:
            if given:
                self._rows.append(_filled(text, given, tokenizer, config))
                continue
            row = _ended(text, tokenizer, config)
            if prefix:
                self._rows.append(_after(prefix, row, tokenizer, config))
            else:
                cuts = [slice(at, at + self.length) for at in range(0, len(row[0]), self.length)]
                self._rows += [(row[0][cut], row[1][cut], row[2][cut]) for cut in cuts]
        self._rows = [
            (np.append(first, ids), np.append(np.zeros_like(first), counts), np.append(first >= 0, known))
            for ids, counts, known in self._rows
        ]
        longest = max(len(ids) for ids, _, _ in self._rows)
        self.length = max(whole, longest) if self.modelled else longest

    def __len__(self) -> int:
        return len(self._rows)

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The windows of these numbers, in the order of the texts."""
        chosen = [self._rows[row] for row in rows]
        ids = np.full((len(chosen), self.length), self.pad, dtype=np.int64)
        real, given = np.zeros(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=bool)
        for row, (window, _, known) in enumerate(chosen):
            here = row, slice(len(window))
            ids[here], real[here], given[here] = window, True, known
        batch = Batch(
            tokens=torch.from_numpy(ids),
            valid_mask=None if self.modelled or real.all() else torch.from_numpy(real),
            condition_mask=torch.from_numpy(given) if given.any() else None,
            row_ids=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
            num_chars=torch.tensor([int(counts[~known].sum()) for _, counts, known in chosen]),
        )
        return self.labelled(batch)


_Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # ids, characters of each, and which are given


def _ended(text: str, tokenizer: Tokenizer, config: TextConfig) -> _Row:
    text = normalise(config.normaliser, text)
    if not text:
        raise UserError("An empty text has no bits per character.")
    ids, counts = _counted(text, tokenizer)
    if config.layout != "stream":
        assert tokenizer.end_id is not None
        # A line ends in a line break, which is a character; the end of a document is none.
        ids, counts = np.append(ids, tokenizer.end_id), np.append(counts, int(config.layout == "lines"))
    return ids, counts, np.zeros(len(ids), dtype=bool)


def _after(prefix: str, row: _Row, tokenizer: Tokenizer, config: TextConfig) -> _Row:
    ids, counts, _ = row
    room = config.length - len(ids)
    if room < 1:
        raise UserError(
            f"A text of {len(ids)} tokens leaves no room for a prefix in a window of {config.length}; score it without."
        )
    before, letters = _counted(normalise(config.normaliser, prefix), tokenizer)
    before, letters = before[-room:], letters[-room:]
    return np.append(before, ids), np.append(letters, counts), np.arange(len(before) + len(ids)) < len(before)


def _filled(text: str, template: str, tokenizer: Tokenizer, config: TextConfig) -> _Row:
    if templates.OPEN in templates.parse(template):
        raise UserError(f"Every gap of the template {template!r} needs its number of tokens: [MASK:5].")
    blank = templates.batch(
        [template],
        tokenizer,
        ended=config.layout != "stream",
        padded_to=config.length if config.model_padding else 0,
    )
    assert blank.condition_mask is not None
    ids, known = blank.tokens[0].numpy(), blank.condition_mask[0].numpy()
    own, letters = _counted(text, tokenizer)
    whole = len(templates.encode(template, tokenizer)[0])
    if len(own) != whole or (own != ids[:whole])[known[:whole]].any():
        raise UserError(f"{text!r} does not fill the template {template!r}: all but its gaps must be the same.")
    return np.append(own, ids[whole:]), np.append(letters, np.zeros(len(ids) - whole, dtype=letters.dtype)), known


def _counted(text: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    ids, counts = tokenizer.encode_counted(text)
    return ids, np.ones_like(ids) if counts is None else counts
