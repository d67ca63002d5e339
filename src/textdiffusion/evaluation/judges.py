"""The n-gram as a judge of strings: bits per character of texts, each by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .metrics import Undefined
from .ngram import NGram

Split = Callable[[str], Sequence[str]]
"""Cuts a text into pieces that together are the text."""

END, NEVER = 0, 1  # between the texts that were counted; what none of them has

_WORDS = re.compile(r"\s*\w+|\s*[^\w\s]+|\s+")


def characters(text: str) -> Sequence[str]:
    """Every character a piece."""
    return text


def words(text: str) -> Sequence[str]:
    """Words and runs of punctuation, each with the white space before it."""
    return _WORDS.findall(text)


@dataclass(frozen=True)
class TextJudge:
    """A modified Kneser-Ney n-gram over the pieces of texts.

    A piece that was never counted costs what the n-gram leaves for the unseen, plus 8 bits for each of its bytes: so
    the probabilities of all texts sum to one at most, and gibberish is never cheap because it is one unknown word.
    """

    split: Split
    ids: dict[str, int] = field(repr=False)
    ngram: NGram = field(repr=False)

    @classmethod
    def fit(cls, texts: Sequence[str], split: Split, order: int) -> TextJudge:
        """Counts the texts. Raises ValueError where they are all empty."""
        cut = [split(text) for text in texts]
        ids = {piece: i for i, piece in enumerate(sorted(set().union(*cut)), NEVER + 1)}
        counted = _joined([[ids[piece] for piece in pieces] for pieces in cut], END)[:-1]
        return cls(split, ids, NGram.fit(counted, len(ids) + 2, min(order, len(counted))))

    def bits(self, texts: Sequence[str]) -> float:
        """-log2 p per character over all texts, each begun without context. Raises Undefined for no characters.

        What was never counted stands between the texts: no seen n-gram contains it, so no context crosses a border.
        """
        cut = [self.split(text) for text in texts]
        rows = [[self.ids.get(piece, NEVER) for piece in pieces] for pieces in cut]
        ids = _joined(rows, NEVER)
        own = np.ones(len(ids), dtype=bool)
        own[np.cumsum([len(row) + 1 for row in rows], dtype=np.int64) - 1] = False
        unseen = (
            p for row, pieces in zip(rows, cut, strict=True) for i, p in zip(row, pieces, strict=True) if i == NEVER
        )
        spelt = 8 * sum(len(piece.encode(errors="replace")) for piece in unseen)
        total = sum(map(len, texts))
        if not total:
            raise Undefined("empty texts have no bits per character")
        return (float(self.ngram.bits(ids)[own].sum()) + spelt) / total

    def sample(self, num: int, length: int, seed: int) -> list[list[str]]:
        """`num` times `length` pieces, cut at the ends of texts: each a list of texts, first and last incomplete."""
        names = {END: "\0", NEVER: "", **{i: piece for piece, i in self.ids.items()}}
        drawn = self.ngram.sample(num, length, seed)
        return ["".join(map(names.__getitem__, row)).split("\0") for row in drawn.tolist()]


def _joined(rows: Sequence[Sequence[int]], border: int) -> np.ndarray:
    return np.array([i for row in rows for i in (*row, border)], dtype=np.int64)
