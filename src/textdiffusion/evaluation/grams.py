"""Sequences side by side as ids, and 64-bit hashes of their n-grams: what most sample metrics count."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int, Integer, UInt64

Hashes = UInt64[np.ndarray, " n"]

_BASE, _OWNER = 0x9E3779B97F4A7C15, np.uint64(0xD1342543DE82EF95)  # odd, so they have inverses modulo 2^64


@dataclass(frozen=True)
class Grams:
    """`ids` of all samples in a row, `owner` the sample of each; an n-gram never crosses a border.

    The hash of the n-gram at i is sum_k ids[i + k] * base^(k + 1) modulo 2^64. Two n-grams of a million share one with
    a probability of about 1e-7, so counting hashes is counting n-grams.
    """

    ids: Integer[np.ndarray, " n"]
    owner: Int[np.ndarray, " n"]
    samples: int

    @classmethod
    def of(cls, samples: Sequence[Sequence[Hashable]]) -> Grams:
        """Of lists of words, ids or whatever else can be compared."""
        names: dict[Hashable, int] = {}
        listed = [names.setdefault(item, len(names) + 1) for sample in samples for item in sample]
        return cls(np.array(listed, dtype=np.int64), _owners(samples), len(samples))

    @classmethod
    def characters(cls, texts: Sequence[str]) -> Grams:
        """Of the characters of texts, by their code points."""
        raw = "".join(texts).encode("utf-32-le", "surrogatepass")
        return cls(np.frombuffer(raw, dtype=np.uint32), _owners(texts), len(texts))

    def hashes(self, length: int) -> tuple[Hashes, Int[np.ndarray, " n"]]:
        """The hash and the sample of every n-gram of this length, in order."""
        sums, inverse = self._rolling
        count = max(len(self.ids) - length + 1, 0)
        found = (sums[length:] - sums[:count]) * inverse[:count]
        owner = self.owner[:count]
        inside = owner == self.owner[length - 1 :]
        return found[inside], owner[inside]

    def lengths(self) -> Int[np.ndarray, " samples"]:
        """Items of each sample."""
        return np.bincount(self.owner, minlength=self.samples)

    @cached_property
    def _rolling(self) -> tuple[UInt64[np.ndarray, " m"], Hashes]:
        """Prefix sums of ids[i] * base^i, and base^(1 - i), which moves a difference of them to the start."""
        powers = np.full(len(self.ids), _BASE, dtype=np.uint64)
        inverse = np.full(len(self.ids), pow(_BASE, -1, 1 << 64), dtype=np.uint64)
        powers[:1] = 1
        inverse[:1] = _BASE
        terms = self.ids.astype(np.uint64) * np.cumprod(powers)
        return np.append(np.uint64(0), np.cumsum(terms)), np.cumprod(inverse)


def within(hashes: Hashes, owner: Int[np.ndarray, " n"]) -> Hashes:
    """Hashes of (n-gram, sample), to count each sample for itself."""
    return hashes + owner.astype(np.uint64) * _OWNER


def _owners(samples: Sequence[Sequence[object]]) -> Int[np.ndarray, " n"]:
    return np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
