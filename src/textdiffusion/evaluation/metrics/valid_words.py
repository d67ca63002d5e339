"""Which words the training text knows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ..ngram_statistics import fraction
from .base import ReferenceTexts, TextSet, metric

LETTERS = re.compile(r"[^\W\d_]+")


def lexicon(text: str) -> frozenset[str]:
    """The words of a text: runs of letters, in lower case."""
    return frozenset(LETTERS.findall(text.lower()))


def valid_fraction(samples: Sequence[str], vocabulary: Collection[str]) -> float:
    """Fraction of the words of all samples, each as often as it occurs, that `vocabulary` contains.

    Raises Undefined for samples without a word.
    """
    return fraction((word in vocabulary for sample in samples for word in LETTERS.findall(sample.lower())), "words")


def _lexicon(real: ReferenceTexts) -> frozenset[str]:
    return lexicon("\n".join(real.train))


@metric("valid words", unit="fraction", best="real", meaning="words that occur in the training text")
def valid_words(texts: TextSet, real: ReferenceTexts) -> float:
    return valid_fraction(texts.texts, real.once(_lexicon))
