"""How much of the texts is copied from the training text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from ..ngram_statistics import Grams, Undefined
from .base import ReferenceTexts, TextSet, metric

_TABLE_BITS = 24  # of the table that rules out, in one look-up, nearly all of the training text


class CopyFinder:
    """Finds spans of samples in a training text by the hash of every span of a length."""

    def __init__(self, train: Grams) -> None:
        self.train = train

    def is_copied(self, samples: Grams, length: int) -> Bool[np.ndarray, " n"]:
        """For every span of `length` characters in the samples: whether it occurs in the training text."""
        sample_hashes, _ = samples.hashes(length)
        train_hashes, _ = self.train.hashes(length)
        shift = np.uint64(64 - _TABLE_BITS)
        table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        table[sample_hashes >> shift] = True
        return np.isin(sample_hashes, train_hashes[table[train_hashes >> shift]])

    def copied_fraction(self, samples: Grams, length: int = 30) -> float:
        """Fraction of the samples' spans of `length` characters that occur in the training text.

        Raises Undefined where no sample is that long.
        """
        copied = self.is_copied(samples, length)
        if not len(copied):
            raise Undefined(f"no sample has {length} characters: the copied fraction is undefined")
        return float(copied.mean())

    def longest(self, samples: Grams) -> int:
        """Characters of the longest span of any sample that occurs in the training text."""
        low, high = 0, int(samples.lengths().max(initial=0))
        while low < high:  # bisection: every part of a copied span is copied too
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.is_copied(samples, middle).any() else (low, middle - 1)
        return low


def _finder(real: ReferenceTexts) -> CopyFinder:
    return CopyFinder(Grams.characters(real.train))


@metric("longest copy", unit="characters", best="real", meaning="longest span copied from the training text")
def longest_copy(texts: TextSet, real: ReferenceTexts) -> int:
    return real.once(_finder).longest(texts.chars)


@metric("copied spans", unit="fraction", best="real", meaning="spans of 30 characters that the training text contains")
def copied_spans(texts: TextSet, real: ReferenceTexts) -> float:
    return real.once(_finder).copied_fraction(texts.chars)
