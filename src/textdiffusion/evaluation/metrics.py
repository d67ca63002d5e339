"""How varied and how repetitive samples are; none of these numbers is a verdict alone."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt64

from ..data.builtin import grammar

LETTERS = re.compile(r"[^\W\d_]+")


class Undefined(ValueError):
    """A metric has no value for these samples: there are too few, or they are too short."""


def distinct(grams: Grams, n: int) -> float:
    """Distinct n-grams over all n-grams of all samples (Li et al. 2016, distinct-n); falls as samples get more.

    Raises Undefined if no sample is n long.
    """
    hashes, _ = grams.hashes(n)
    return len(np.unique(hashes)) / _some(len(hashes), f"distinct-{n}")


def repetition(grams: Grams, n: int = 4) -> float:
    """Share of n-grams that their own sample had before (seq-rep-n, Welleck et al. 2020), over all samples.

    Raises Undefined if no sample is n long.
    """
    hashes, owner = grams.hashes(n)
    return 1 - len(np.unique(within(hashes, owner))) / _some(len(hashes), "repetition")


def self_bleu(grams: Grams, longest: int = 4) -> float:
    """Corpus BLEU (Papineni et al. 2002) of every sample against all others (Zhu et al. 2018), n = 1..`longest`.

    Exact and unsmoothed, in one pass: what an n-gram may count is its largest count in any other sample, which is the
    largest of all, or for the sample that has it the second. Raises Undefined for fewer than two samples, or if none
    is `longest` long.
    """
    if grams.samples < 2:
        raise Undefined("self-BLEU needs two samples")
    lengths = np.sort(grams.lengths())
    _some(int((lengths >= longest).sum()), f"self-BLEU-{longest}")
    logs = 0.0
    for n in range(1, longest + 1):
        hashes, owner = grams.hashes(n)
        _, first, counts = np.unique(within(hashes, owner), return_index=True, return_counts=True)
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
    """Entropy in bits of the ids' frequencies; low values betray repetition. Raises Undefined for no ids."""
    p = np.unique(ids, return_counts=True)[1] / _some(len(ids), "entropy")
    return float(-(p * np.log2(p)).sum()) + 0.0


def entropy_within(grams: Grams) -> float:
    """`unigram_entropy` of each sample by itself, in bits per item, averaged over samples that are not empty.

    This is the entropy usually stated beside generative perplexity; it sees no likeness between samples.
    """
    lengths = grams.lengths()
    hashes, owner = grams.hashes(1)
    _, first, counts = np.unique(within(hashes, owner), return_index=True, return_counts=True)
    p = counts / lengths[owner[first]]
    return float(-(p * np.log2(p)).sum() / _some(int((lengths > 0).sum()), "entropy")) + 0.0


def compression(samples: Sequence[str]) -> float:
    """Bytes of all samples together after zlib (level 9, window 32 kB) over bytes before."""
    raw = "\n".join(samples).encode(errors="replace")
    return len(zlib.compress(raw, 9)) / _some(len(raw), "compression")


def lexicon(text: str) -> frozenset[str]:
    """The words of a text: runs of letters, in lower case."""
    return frozenset(LETTERS.findall(text.lower()))


def valid_words(samples: Sequence[str], known: Collection[str]) -> float:
    """Share of the words of all samples, each as often as it occurs, that are in the lexicon `known`.

    Raises Undefined for samples without a word.
    """
    return share((word in known for sample in samples for word in LETTERS.findall(sample.lower())), "words")


def share(values: Iterable[bool], of: str) -> float:
    """The share that is true. Raises Undefined for no values."""
    listed = list(values)
    return sum(listed) / _some(len(listed), f"a share of {of}")


def _some(count: int, what: str) -> int:
    if not count:
        raise Undefined(f"{what} is undefined: the samples are too short")
    return int(count)


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


Check = Callable[[str], bool]
"""Whether a line is a sentence of the language."""


_PRODUCE_SENTENCE = re.compile(r"The (\S+) (\S.*) is (\S+)\.")


@dataclass(frozen=True)
class ProduceSentences:
    """The closed language "The COLOUR PRODUCE is STATE." with the words of a training text.

    A sentence is legal if it is exactly one colour, produce and state of that text in this frame, whatever the
    combination; it is novel if the training text does not contain it.
    """

    colours: frozenset[str]
    produce: frozenset[str]
    states: frozenset[str]
    seen: frozenset[str]

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> ProduceSentences:
        """Raises ValueError for a line that is not of the frame."""
        seen = frozenset(lines)
        words: tuple[set[str], ...] = (set(), set(), set())
        for line in seen:
            match = _PRODUCE_SENTENCE.fullmatch(line)
            if match is None:
                raise ValueError(f"{line!r} is not of the form 'The COLOUR PRODUCE is STATE.'")
            for kind, word in zip(words, match.groups(), strict=True):
                kind.add(word)
        return cls(*map(frozenset, words), seen=seen)

    def __len__(self) -> int:
        """Number of legal sentences."""
        return len(self.colours) * len(self.produce) * len(self.states)

    def is_legal(self, text: str) -> bool:
        match = _PRODUCE_SENTENCE.fullmatch(text)
        if match is None:
            return False
        colour, produce, state = match.groups()
        return colour in self.colours and produce in self.produce and state in self.states

    def legal(self, samples: Sequence[str]) -> float:
        """Fraction of the samples that are legal."""
        return share((self.is_legal(text) for text in samples), "samples")

    def novel_and_legal(self, samples: Sequence[str]) -> float:
        """Fraction of the samples that are legal and not in the training text."""
        return share((self.is_legal(text) and text not in self.seen for text in samples), "samples")


def checker(lines: Sequence[str]) -> Check | None:
    """The check of the language that the lines of a training text are of; None where no known language has them."""
    return next((check for find in _KNOWN if (check := find(lines))), None) if lines else None


def _produce(lines: Sequence[str]) -> Check | None:
    try:
        return ProduceSentences.from_lines(lines).is_legal
    except ValueError:
        return None


def _grammar(lines: Sequence[str]) -> Check | None:
    return grammar.is_legal if all(map(grammar.is_legal, lines[:1000])) else None


_KNOWN: tuple[Callable[[Sequence[str]], Check | None], ...] = (_produce, _grammar)
