"""An interpolated Kneser-Ney n-gram model over integer ids: the baseline that a diffusion model has to beat.

Every distinct n-gram of the training text has a dense rank among those of its length. The n-grams of length k are
one sorted array of keys, `rank of the first k - 1 ids * vocab_size + last id`, so the continuations of a context
lie side by side, any order and vocabulary fits in 64 bits, and a look-up is a binary search.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Integer

from ..data.shards import Shard
from .heldout import HeldOut
from .metrics import Undefined

Discounts = Literal["modified", "single"]


Ids = Integer[np.ndarray, " n"]


@dataclass(frozen=True)
class Level:
    """The n-grams of one length; `p(id | context) = own + left * p(id | shorter context)`.

    The last entry of `own` and `left` stands for whatever was never seen, which has rank -1.
    """

    keys: Int[np.ndarray, " n"]  # ascending
    own: Float[np.ndarray, " n+1"]  # discounted share of the context's count; 0 for the unseen
    left: Float[np.ndarray, " contexts"]  # weight that the context hands to the shorter one; 1 for the unseen
    mass: Float[np.ndarray, " n+1"]  # running sum of `own`, from 0

    def find(self, keys: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Ranks of the keys, -1 where unseen."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)


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
        """Counts one running text.

        `single` takes one discount per order, `modified` one each for counts 1, 2 and 3 or more.
        Raises ValueError for an order below 1, a text shorter than the order, or ids outside the vocabulary.
        """
        if not 1 <= order <= len(ids):
            raise ValueError(f"order {order} must be between 1 and the length of the text, {len(ids)}")
        ids = _checked(ids, vocab_size)
        keys, prefixes, suffixes = [], [], []
        ranks = np.zeros(
            len(ids) + 1, dtype=np.int64
        )  # of the n-gram that starts at each position; first the empty one
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
        """-log2 p of each id given up to `order - 1` ids before it in `ids`; the first is given nothing.

        Raises ValueError for ids outside the vocabulary.
        """
        ids = _checked(ids, self.vocab_size)
        p = np.full(len(ids), 1 / self.vocab_size)
        ranks = np.zeros(len(ids) + 1, dtype=np.int64)
        for length, level in enumerate(self.levels[: len(ids)], start=1):
            contexts = ranks[: len(ids) - length + 1]
            # An unseen context has rank -1: its keys are negative and found nowhere.
            ranks = level.find(contexts * self.vocab_size + ids[length - 1 :])
            p[length - 1 :] = level.own[ranks] + level.left[contexts] * p[length - 1 :]
        return -np.log2(p)

    def bits_per_token(self, ids: Ids) -> float:
        """Mean of `bits`; bits per character where the ids are characters. Raises ValueError for an empty text."""
        if not len(ids):
            raise ValueError("an empty text has no bits per token")
        return float(self.bits(ids).mean())

    def sample(self, num: int, length: int, seed: int) -> Int[np.ndarray, "num length"]:
        """Draws `num` texts, each from an empty context.

        The model is a mixture, so a draw walks down from the longest seen context: it takes one of the context's own
        continuations or falls to the shorter context, without the distribution over the vocabulary.
        """
        rng = np.random.default_rng(seed)
        texts = np.empty((num, length), dtype=np.int64)
        contexts = [np.zeros(num, dtype=np.int64)] + [np.full(num, -1) for _ in self.levels[1:]]
        for position in range(length):
            drawn = rng.integers(self.vocab_size, size=num)
            undecided = np.ones(num, dtype=bool)
            for level, context in zip(reversed(self.levels), reversed(contexts), strict=True):
                rows = np.flatnonzero(undecided & (rng.random(num) >= level.left[context]))
                drawn[rows] = self._continuation(level, context[rows], rng.random(num)[rows])
                undecided[rows] = False
            texts[:, position] = drawn
            seen = zip(self.levels[:-1], contexts[:-1], strict=True)
            contexts = contexts[:1] + [level.find(context * self.vocab_size + drawn) for level, context in seen]
        return texts

    def _continuation(
        self, level: Level, contexts: Int[np.ndarray, " m"], u: Float[np.ndarray, " m"]
    ) -> Int[np.ndarray, " m"]:
        """Draws one of each context's own continuations in proportion to `level.own`, u uniform in [0, 1)."""
        first = np.searchsorted(level.keys, contexts * self.vocab_size)
        last = np.searchsorted(level.keys, (contexts + 1) * self.vocab_size) - 1
        low, high = level.mass[first], level.mass[last + 1]
        chosen = np.searchsorted(level.mass, low + u * (high - low), side="right") - 1
        return level.keys[np.clip(chosen, first, last)] % self.vocab_size


def _checked(ids: Ids, vocab_size: int) -> Int[np.ndarray, " n"]:
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"ids must lie in [0, {vocab_size}), got {int(ids.min())} to {int(ids.max())}")
    return ids.astype(np.int64)


def _order(keys: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Positions that sort the keys. Sorting key and position in one integer is twice as fast as an argsort."""
    bits = len(keys).bit_length()
    if int(keys.max()).bit_length() + bits > 63:
        return np.argsort(keys)
    return np.sort(keys << bits | np.arange(len(keys))) & ((1 << bits) - 1)


def _level(
    keys: Int[np.ndarray, " n"],
    prefixes: Int[np.ndarray, " n"],
    counts: Int[np.ndarray, " n"],
    contexts: int,
    discounts: Discounts,
) -> Level:
    """Discounted shares and back-off weights of one length; a context without a count leaves everything."""
    discount = _discounts(counts, discounts)[np.minimum(counts, 3)]
    totals = np.bincount(prefixes, weights=counts, minlength=contexts)
    taken = np.bincount(prefixes, weights=discount, minlength=contexts)
    left = np.divide(taken, totals, out=np.ones(contexts), where=totals > 0)
    own = (counts - discount) / np.maximum(totals, 1)[prefixes]
    return Level(keys, np.append(own, 0.0), np.append(left, 1.0), np.append(0.0, np.cumsum(own)))


def _discounts(counts: Int[np.ndarray, " n"], discounts: Discounts) -> Float[np.ndarray, "4"]:
    """Discounts of counts 0, 1, 2 and 3 or more, from the counts of counts n1..n4 (Chen & Goodman 1998, eq. 26).

    An estimate that a small text leaves without one of its counts, or not positive, is k/2 (single: 1/2) instead.
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


MOST = 20_000_000  # tokens of the training text that are counted


SMALL, LONG, SHORT = 512, 7, 4  # vocabularies up to this size get the long order, larger ones the short


@dataclass(frozen=True)
class Baseline:
    """Bits per character of a modified Kneser-Ney n-gram, which also sees what stands before a window."""

    bits: float
    order: int
    counted: int
    """Tokens it was trained on."""


def kneser_ney(train: Shard, text: HeldOut, vocab_size: int) -> Baseline:
    """The n-gram of (the first 20 million tokens of) `train`, measured on the tokens in the windows of `text`."""
    counted = np.asarray(train.tokens[:MOST])
    order = min(LONG if vocab_size <= SMALL else SHORT, len(counted))
    bits = NGram.fit(counted, vocab_size, order).bits(np.asarray(text.dataset.shard.tokens))
    return Baseline(float(bits[text.positions()].sum()) / text.characters(), order, len(counted))


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
class NgramScorer:
    """A modified Kneser-Ney n-gram over the pieces of texts.

    A piece that was never counted costs what the n-gram leaves for the unseen, plus 8 bits for each of its bytes: so
    the probabilities of all texts sum to one at most, and gibberish is never cheap because it is one unknown word.
    """

    split: Split
    ids: dict[str, int] = field(repr=False)
    ngram: NGram = field(repr=False)

    @classmethod
    def fit(cls, texts: Sequence[str], split: Split, order: int) -> NgramScorer:
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
