"""Texts in memory as evaluation windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..batch import Batch
from ..errors import UserError
from ..text.config import TextConfig
from ..text.normalisers import normalise
from ..text.tokenizers import Tokenizer


class Texts:
    """Texts cut into windows of `config.length` tokens, each text for itself, normalised, ended and padded as in
    training; characters are counted after normalising.

    Raises UserError for a text that is empty or that the tokenizer cannot read.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, config: TextConfig) -> None:
        self.length, self.pad = config.length, tokenizer.pad_id or 0
        self.modelled = config.model_padding
        self._rows: list[tuple[np.ndarray, int]] = []
        for text in texts:
            text = normalise(config.normaliser, text)
            if not text:
                raise UserError("An empty text has no bits per character.")
            ids, counts = tokenizer.encode_counted(text)
            counts = np.ones_like(ids) if counts is None else counts
            if config.layout != "stream":
                assert tokenizer.end_id is not None
                # A line ends in a line break, which is a character; the end of a document is none.
                ids, counts = np.append(ids, tokenizer.end_id), np.append(counts, int(config.layout == "lines"))
            for start in range(0, len(ids), self.length):
                window = slice(start, start + self.length)
                self._rows.append((ids[window], int(counts[window].sum())))

    def __len__(self) -> int:
        return len(self._rows)

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The windows of these numbers, in the order of the texts."""
        chosen = [self._rows[row] for row in rows]
        ids = np.full((len(chosen), self.length), self.pad, dtype=np.int64)
        real = np.zeros(ids.shape, dtype=bool)
        for row, (window, _) in enumerate(chosen):
            ids[row, : len(window)], real[row, : len(window)] = window, True
        return Batch(
            ids=torch.from_numpy(ids),
            real=None if self.modelled or real.all() else torch.from_numpy(real),
            rows=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
            chars=torch.tensor([chars for _, chars in chosen]),
        )
