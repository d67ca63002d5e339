"""An interpolated Kneser-Ney n-gram model over integer ids: the baseline that a diffusion model has to beat.

Every distinct n-gram of the training text has a dense rank among those of its length. The n-grams of length k are
one sorted array of keys, `rank of the first k - 1 ids * vocab_size + last id`, so the continuations of a context
are adjacent, any order and vocabulary fits in 64 bits, and a look-up is a binary search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Integer

from ..data.shards import Shard
from .heldout import HeldOut

Discounts = Literal["modified", "single"]
Ids = Integer[np.ndarray, " n"]
Ints = Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Level:
    """The n-grams of one length: p(id | context) = discounted + backoff * p(id | shorter context).

    The last entry of `discounted` and `backoff` is for unseen n-grams and contexts, which have rank -1.
    """

    keys: Ints  # ascending
    discounted: Float[np.ndarray, " n+1"]  # discounted relative frequency in the context; 0 for the unseen
    backoff: Float[np.ndarray, " contexts"]  # weight of the shorter context; 1 for the unseen
    cumulative: Float[np.ndarray, " n+1"]  # running sum of `discounted`, from 0

    def find(self, keys: Ints) -> Ints:
        """Ranks of the keys, -1 where unseen."""
        ranks = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[ranks] == keys, ranks, -1)


@dataclass(frozen=True)
class NGram:
    """Interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1998, section 4.1.6 and 4.1.7).

    The highest order counts occurrences, every lower one the distinct ids seen before the n-gram; the discounts of
    each order come from the counts of that order; below the unigrams lies the uniform distribution over the
    vocabulary, so every id has a positive probability.
    """

    vocab_size: int
    levels: tuple[Level, ...]  # lengths 1, 2, ..., order

    @classmethod
    def fit(cls, ids: Ids, vocab_size: int, order: int, discounts: Discounts = "modified") -> "NGram":
        """Counts the n-grams of one running text.

        `single` uses one discount per order, `modified` one each for counts 1, 2 and 3 or more.
        Raises ValueError for an order below 1, a text shorter than the order, or ids outside the vocabulary.
        """
        if not 1 <= order <= len(ids):
            raise ValueError(f"order {order} must be between 1 and the length of the text, {len(ids)}")
        ids = _checked(ids, vocab_size)
        keys, prefixes, suffixes = [], [], []
        ranks = np.zeros(len(ids) + 1, dtype=np.int64)  # of the n-gram at each position, at first the empty one
        for length in range(1, order + 1):
            grams = ranks[: len(ids) - length + 1] * vocab_size + ids[length - 1 :]
            by_key = _order(grams)
            grams = grams[by_key]
            new = np.concatenate([[True], grams[1:] != grams[:-1]])
            starts = np.flatnonzero(new)
            keys.append(grams[starts])
            prefixes.append(keys[-1] // vocab_size)
            suffixes.append(ranks[by_key[starts] + 1])
            ranks = np.empty(len(grams), dtype=np.int64)
            ranks[by_key] = np.cumsum(new) - 1
        counts = np.bincount(ranks)
        levels = []
        for length in range(order, 0, -1):
            contexts = len(keys[length - 2]) if length > 1 else 1
            levels.append(_level(keys[length - 1], prefixes[length - 1], counts, contexts, discounts))
            counts = np.bincount(suffixes[length - 1], minlength=contexts)
        return cls(vocab_size, tuple(reversed(levels)))

    @property
    def order(self) -> int:
        return len(self.levels)

    def bits(self, ids: Ids) -> Float[np.ndarray, " n"]:
        """-log2 p of each id given up to `order - 1` ids before it in `ids`; the first has no context.

        Raises ValueError for ids outside the vocabulary.
        """
        ids = _checked(ids, self.vocab_size)
        p = np.full(len(ids), 1 / self.vocab_size)
        ranks = np.zeros(len(ids) + 1, dtype=np.int64)
        for length, level in enumerate(self.levels[: len(ids)], start=1):
            contexts = ranks[: len(ids) - length + 1]
            # An unseen context has rank -1: its keys are negative and occur nowhere.
            ranks = level.find(contexts * self.vocab_size + ids[length - 1 :])
            p[length - 1 :] = level.discounted[ranks] + level.backoff[contexts] * p[length - 1 :]
        return -np.log2(p)

    def bits_per_token(self, ids: Ids) -> float:
        """Mean of `bits`; bits per character where the ids are characters. Raises ValueError for an empty text."""
        if not len(ids):
            raise ValueError("an empty text has no bits per token")
        return float(self.bits(ids).mean())

    def sample(self, num: int, length: int, seed: int) -> Int[np.ndarray, "num length"]:
        """Samples `num` texts, each from an empty context.

        The model is a mixture, so sampling starts at the longest seen context and takes either one of its own
        continuations or backs off to the shorter context; the distribution over the vocabulary is never formed.
        """
        rng = np.random.default_rng(seed)
        texts = np.empty((num, length), dtype=np.int64)
        contexts = [np.zeros(num, dtype=np.int64)] + [np.full(num, -1) for _ in self.levels[1:]]
        for position in range(length):
            sampled = rng.integers(self.vocab_size, size=num)
            undecided = np.ones(num, dtype=bool)
            for level, context in zip(reversed(self.levels), reversed(contexts), strict=True):
                rows = np.flatnonzero(undecided & (rng.random(num) >= level.backoff[context]))
                sampled[rows] = self._continuation(level, context[rows], rng.random(num)[rows])
                undecided[rows] = False
            texts[:, position] = sampled
            seen = zip(self.levels[:-1], contexts[:-1], strict=True)
            contexts = contexts[:1] + [level.find(context * self.vocab_size + sampled) for level, context in seen]
        return texts

    def _continuation(self, level: Level, contexts: Ints, u: Float[np.ndarray, " n"]) -> Ints:
        """One of each context's own continuations, sampled in proportion to `discounted`; u is uniform in [0, 1)."""
        first = np.searchsorted(level.keys, contexts * self.vocab_size)
        last = np.searchsorted(level.keys, (contexts + 1) * self.vocab_size) - 1
        low, high = level.cumulative[first], level.cumulative[last + 1]
        chosen = np.searchsorted(level.cumulative, low + u * (high - low), side="right") - 1
        return level.keys[np.clip(chosen, first, last)] % self.vocab_size


def _checked(ids: Ids, vocab_size: int) -> Ints:
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"ids must lie in [0, {vocab_size}), got {int(ids.min())} to {int(ids.max())}")
    return ids.astype(np.int64)


def _order(keys: Ints) -> Ints:
    """Positions that sort the keys. Sorting key and position in one integer is twice as fast as an argsort."""
    bits = len(keys).bit_length()
    if int(keys.max()).bit_length() + bits > 63:
        return np.argsort(keys)
    return np.sort(keys << bits | np.arange(len(keys))) & ((1 << bits) - 1)


def _level(keys: Ints, prefixes: Ints, counts: Ints, contexts: int, discounts: Discounts) -> Level:
    """Discounted frequencies and back-off weights of one length; a context without a count backs off entirely."""
    discount = _discounts(counts, discounts)[np.minimum(counts, 3)]
    totals = np.bincount(prefixes, weights=counts, minlength=contexts)
    removed = np.bincount(prefixes, weights=discount, minlength=contexts)
    backoff = np.divide(removed, totals, out=np.ones(contexts), where=totals > 0)
    discounted = (counts - discount) / np.maximum(totals, 1)[prefixes]
    return Level(keys, np.append(discounted, 0.0), np.append(backoff, 1.0), np.append(0.0, np.cumsum(discounted)))


def _discounts(counts: Ints, discounts: Discounts) -> Float[np.ndarray, "4"]:
    """Discounts of counts 0, 1, 2 and 3 or more, from the counts of counts n1..n4 (Chen & Goodman 1998, eq. 26).

    Where a small text lacks one of the counts, or the estimate is not positive, the discount is k/2 (single: 1/2).
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    if discounts == "single":
        return np.array([0.0, y, y, y])
    d = np.arange(4) / 2
    for k in (1, 2, 3):
        if n[1] and n[2] and n[k] and n[k + 1]:
            estimate = k - (k + 1) * y * n[k + 1] / n[k]
            d[k] = estimate if estimate > 0 else d[k]
    return d


MAX_TOKENS = 20_000_000  # of the training text that are counted
SMALL_VOCABULARY, LONG_ORDER, SHORT_ORDER = 512, 7, 4  # vocabularies up to that size get the long order


@dataclass(frozen=True)
class Baseline:
    """Bits per character of a modified Kneser-Ney n-gram, which also sees the text before a window."""

    bits: float
    order: int
    train_tokens: int


def kneser_ney(train: Shard, text: HeldOut, vocab_size: int) -> Baseline:
    """The n-gram of (the first 20 million tokens of) `train`, measured on the tokens in the windows of `text`."""
    tokens = np.asarray(train.tokens[:MAX_TOKENS])
    order = min(LONG_ORDER if vocab_size <= SMALL_VOCABULARY else SHORT_ORDER, len(tokens))
    bits = NGram.fit(tokens, vocab_size, order).bits(np.asarray(text.dataset.shard.tokens))
    total = float(bits[text.positions()].sum()) + text.lost_bits()
    return Baseline(total / text.characters(), order, len(tokens))
