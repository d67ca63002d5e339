"""An n-gram over the characters or words of texts: it scores texts, and samples them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from .ngram import NGram
from .ngram_statistics import Undefined

Split = Callable[[str], Sequence[str]]
"""Cuts a text into pieces that together make up the text."""

END, UNSEEN = 0, 1  # the id between the training texts; the id of a piece that none of them contains
_WORDS = re.compile(r"\s*\w+|\s*[^\w\s]+|\s+")


def characters(text: str) -> Sequence[str]:
    """One piece per character."""
    return text


def words(text: str) -> Sequence[str]:
    """Words and runs of punctuation, each with the white space before it."""
    return _WORDS.findall(text)


@dataclass(frozen=True)
class NgramScorer:
    """A modified Kneser-Ney n-gram over the pieces of texts.

    An unseen piece costs the n-gram's bits for unseen pieces plus 8 bits per byte. So the probabilities of all texts
    sum to at most one, and gibberish does not get cheap by being one unknown word.
    """

    split: Split
    ids: dict[str, int] = field(repr=False)
    ngram: NGram = field(repr=False)

    @classmethod
    def fit(cls, texts: Sequence[str], split: Split, order: int) -> NgramScorer:
        """Counts the texts. Raises ValueError where they are all empty."""
        pieces = [split(text) for text in texts]
        ids = {piece: i for i, piece in enumerate(sorted(set().union(*pieces)), UNSEEN + 1)}
        train = _join([[ids[piece] for piece in row] for row in pieces], END)[:-1]
        return cls(split, ids, NGram.fit(train, len(ids) + 2, min(order, len(train))))

    def bits(self, texts: Sequence[str]) -> float:
        """-log2 p per character over all texts, each from an empty context. Raises Undefined for no characters."""
        pieces = [self.split(text) for text in texts]
        rows = [[self.ids.get(piece, UNSEEN) for piece in row] for row in pieces]
        ids = _join(rows, UNSEEN)  # no seen n-gram contains that id, so no context reaches into the text before
        in_text = np.ones(len(ids), dtype=bool)
        in_text[np.cumsum([len(row) + 1 for row in rows], dtype=np.int64) - 1] = False
        unseen = (piece for row in pieces for piece in row if piece not in self.ids)
        spelling_bits = 8 * sum(len(piece.encode(errors="replace")) for piece in unseen)
        num_chars = sum(map(len, texts))
        if not num_chars:
            raise Undefined("empty texts have no bits per character")
        return (float(self.ngram.bits(ids)[in_text].sum()) + spelling_bits) / num_chars

    def sample(self, num: int, length: int, seed: int) -> list[list[str]]:
        """`num` rows of `length` pieces, each as the list of its texts, of which first and last are incomplete."""
        names = {END: "\0", UNSEEN: "", **{i: piece for piece, i in self.ids.items()}}
        ids = self.ngram.sample(num, length, seed)
        return ["".join(map(names.__getitem__, row)).split("\0") for row in ids.tolist()]


def _join(rows: Sequence[Sequence[int]], separator: int) -> Int[np.ndarray, " n"]:
    return np.array([i for row in rows for i in (*row, separator)], dtype=np.int64)
