"""How varied and how repetitive samples are; none of these numbers is a verdict alone."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from jaxtyping import Integer

from .grams import Grams, within

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
