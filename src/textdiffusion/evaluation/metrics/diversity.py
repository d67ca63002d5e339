"""How varied and how repetitive texts are."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from .. import ngram_statistics as statistics
from .base import ReferenceTexts, TextSet, metric


@metric("entropy", unit="bits per word", best="real", meaning="of the words within a text, averaged over texts")
def entropy(texts: TextSet, real: ReferenceTexts) -> float:
    return statistics.entropy_within(texts.words)


@metric("pooled entropy", unit="bits per word", best="real", meaning="of the words of all texts together")
def pooled_entropy(texts: TextSet, real: ReferenceTexts) -> float:
    return statistics.unigram_entropy(texts.words.ids)


def _register_distinct(n: int) -> None:
    @metric(f"distinct-{n}", unit="fraction", best="real", meaning=f"distinct word {n}-grams among all of them")
    def distinct(texts: TextSet, real: ReferenceTexts) -> float:
        return statistics.distinct(texts.words, n)


for _n in range(1, 5):
    _register_distinct(_n)


@metric("self-BLEU", unit="0 to 1", best="real", meaning="word 4-grams that other texts contain too")
def self_bleu(texts: TextSet, real: ReferenceTexts) -> float:
    return statistics.self_bleu(texts.words)


@metric("repetition", unit="fraction", best="real", meaning="word 4-grams that occurred earlier in the same text")
def repetition(texts: TextSet, real: ReferenceTexts) -> float:
    return statistics.repetition(texts.words)


def compression_ratio(samples: Sequence[str]) -> float:
    """Bytes of all samples together after zlib (level 9, window 32 kB) over bytes before.

    Raises Undefined where there is no text.
    """
    raw = "\n".join(samples).encode(errors="replace")
    return len(zlib.compress(raw, 9)) / statistics.at_least_one(len(raw), "compression")


@metric("compression", unit="fraction", best="real", meaning="size after zlib over size before")
def compression(texts: TextSet, real: ReferenceTexts) -> float:
    return compression_ratio(texts.texts)
