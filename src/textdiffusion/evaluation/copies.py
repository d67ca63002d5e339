"""How much of the samples stands verbatim in the training text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from .grams import Grams
from .metrics import Undefined

_BITS = 24  # of the table that sorts out, in one look-up, nearly all of the training text


@dataclass(frozen=True)
class Copies:
    """Looks for spans of samples in a training text, by the hash of every span of a length."""

    train: Grams = field(repr=False)

    def copied(self, samples: Grams, length: int) -> Bool[np.ndarray, " n"]:
        """For every span of `length` characters in the samples: whether the training text has it."""
        wanted, _ = samples.hashes(length)
        held, _ = self.train.hashes(length)
        table = np.zeros(1 << _BITS, dtype=bool)
        table[wanted >> np.uint64(64 - _BITS)] = True
        return np.isin(wanted, held[table[held >> np.uint64(64 - _BITS)]])

    def rate(self, samples: Grams, length: int = 30) -> float:
        """Share of the samples' spans of `length` characters that the training text has. Raises Undefined for none."""
        found = self.copied(samples, length)
        if not len(found):
            raise Undefined(f"no sample has {length} characters: the copy rate is undefined")
        return float(found.mean())

    def longest(self, samples: Grams) -> int:
        """Characters of the longest span of any sample that the training text has."""
        low, high = 0, int(samples.lengths().max(initial=0))
        while low < high:  # a part of a copied span is copied too
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.copied(samples, middle).any() else (low, middle - 1)
        return low
