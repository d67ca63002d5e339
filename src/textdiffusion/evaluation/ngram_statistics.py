"""Counts of n-grams in samples: how varied and how repetitive they are. None of these numbers is a verdict alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int, Integer, UInt64

Hashes = UInt64[np.ndarray, " n"]
Owners = Int[np.ndarray, " n"]
"""The sample of each item."""


class Undefined(ValueError):
    """A metric has no value for these samples: there are too few, or they are too short."""


def distinct(grams: Grams, n: int) -> float:
    """Distinct n-grams over all n-grams of all samples (distinct-n, Li et al. 2016); falls with more samples.

    Raises Undefined where no sample has n items.
    """
    hashes, _ = grams.hashes(n)
    return len(np.unique(hashes)) / at_least_one(len(hashes), f"distinct-{n}")


def repetition(grams: Grams, n: int = 4) -> float:
    """Fraction of n-grams that occurred earlier in the same sample (seq-rep-n, Welleck et al. 2020), over all samples.

    Raises Undefined where no sample has n items.
    """
    hashes, owner = grams.hashes(n)
    return 1 - len(np.unique(hash_within(hashes, owner))) / at_least_one(len(hashes), "repetition")


def self_bleu(grams: Grams, longest: int = 4) -> float:
    """Corpus BLEU (Papineni et al. 2002) of every sample against all others (Zhu et al. 2018), n = 1..`longest`.

    Exact and unsmoothed, in one pass: an n-gram counts at most as often as in the other sample that has it most often;
    that is the largest count of all, or the second largest for the sample with the largest. Raises Undefined for fewer
    than two samples, and where none has `longest` items.
    """
    if grams.samples < 2:
        raise Undefined("self-BLEU needs two samples")
    lengths = np.sort(grams.lengths())
    at_least_one(int((lengths >= longest).sum()), f"self-BLEU-{longest}")
    logs = 0.0
    for n in range(1, longest + 1):
        hashes, owner = grams.hashes(n)
        _, first, counts = np.unique(hash_within(hashes, owner), return_index=True, return_counts=True)
        gram = hashes[first]
        order = np.lexsort((counts, gram))
        gram, counts = gram[order], counts[order]
        last = np.flatnonzero(np.append(gram[1:] != gram[:-1], True))
        sizes = np.diff(last, prepend=-1)
        others = np.repeat(counts[last], sizes)
        others[last] = np.where(sizes > 1, counts[last - 1], 0)
        matched = int(np.minimum(counts, others).sum())
        if not matched:
            return 0.0
        logs += math.log(matched / len(hashes))
    below = np.append(-math.inf, lengths[:-1])
    above = np.append(lengths[1:], math.inf)
    closest = np.where(lengths - below <= above - lengths, below, above).sum()
    return math.exp(logs / longest + min(0.0, 1 - closest / lengths.sum()))


def unigram_entropy(ids: Integer[np.ndarray, " n"]) -> float:
    """Entropy in bits of the ids' frequencies; low values mean repetition. Raises Undefined for no ids."""
    p = np.unique(ids, return_counts=True)[1] / at_least_one(len(ids), "entropy")
    return float(-(p * np.log2(p)).sum()) + 0.0


def entropy_within(grams: Grams) -> float:
    """`unigram_entropy` of each sample by itself, in bits per item, averaged over samples that are not empty.

    This is the entropy usually stated beside generative perplexity; it does not see samples that resemble each other.
    """
    lengths = grams.lengths()
    hashes, owner = grams.hashes(1)
    _, first, counts = np.unique(hash_within(hashes, owner), return_index=True, return_counts=True)
    p = counts / lengths[owner[first]]
    return float(-(p * np.log2(p)).sum() / at_least_one(int((lengths > 0).sum()), "entropy")) + 0.0


def fraction(values: Iterable[bool], noun: str) -> float:
    """The fraction of the values that are true. Raises Undefined for no values; `noun` says of what."""
    listed = list(values)
    return sum(listed) / at_least_one(len(listed), f"a fraction of {noun}")


def at_least_one(count: int, metric: str) -> int:
    """`count`, to divide by. Raises Undefined for 0; `metric` names what is then undefined."""
    if not count:
        raise Undefined(f"{metric} is undefined: the samples are too short")
    return int(count)


_BASE, _OWNER = 0x9E3779B97F4A7C15, np.uint64(0xD1342543DE82EF95)  # odd, so they have inverses modulo 2^64


@dataclass(frozen=True)
class Grams:
    """`ids` of all samples one after the other, `owner` the sample of each id; no n-gram spans two samples.

    The hash of the n-gram at i is sum_k ids[i + k] * base^(k + 1) modulo 2^64. Any two of a million n-grams collide
    with a probability of about 1e-7, so counting hashes is counting n-grams.
    """

    ids: Integer[np.ndarray, " n"]
    owner: Owners
    samples: int

    @classmethod
    def of(cls, samples: Sequence[Sequence[Hashable]]) -> Grams:
        """Of lists of words, ids or any other hashable items."""
        numbers: dict[Hashable, int] = {}
        ids = [numbers.setdefault(item, len(numbers) + 1) for sample in samples for item in sample]
        return cls(np.array(ids, dtype=np.int64), _owners(samples), len(samples))

    @classmethod
    def characters(cls, texts: Sequence[str]) -> Grams:
        """Of the characters of texts, by their code points."""
        raw = "".join(texts).encode("utf-32-le", "surrogatepass")
        return cls(np.frombuffer(raw, dtype=np.uint32), _owners(texts), len(texts))

    def hashes(self, length: int) -> tuple[Hashes, Owners]:
        """The hash and the sample of every n-gram of this length, in order."""
        sums, inverse = self._rolling
        count = max(len(self.ids) - length + 1, 0)
        hashes = (sums[length:] - sums[:count]) * inverse[:count]
        owner = self.owner[:count]
        inside = owner == self.owner[length - 1 :]
        return hashes[inside], owner[inside]

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


def hash_within(hashes: Hashes, owner: Owners) -> Hashes:
    """Hashes of (n-gram, sample), to count within each sample."""
    return hashes + owner.astype(np.uint64) * _OWNER


def _owners(samples: Sequence[Sequence[object]]) -> Owners:
    return np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
