"""N-gram cross-entropy in both directions: what real text expects of the samples, and the samples of real text."""

from __future__ import annotations

from ..ngram_scorer import NgramScorer, characters, words
from .base import ReferenceTexts, TextSet, metric

CHARACTER_ORDER, WORD_ORDER = 7, 3
UNIT = "bits per character"
FORWARD = "n-gram of the training text, on the texts; below real text means too predictable"
REVERSE = "n-gram of the texts, on unseen real text; rises with everything the texts lack"


def character_ngram(real: ReferenceTexts) -> NgramScorer:
    """The n-gram of the training text's characters."""
    return NgramScorer.fit(real.train, characters, CHARACTER_ORDER)


def word_ngram(real: ReferenceTexts) -> NgramScorer:
    """The n-gram of the training text's words."""
    return NgramScorer.fit(real.train, words, WORD_ORDER)


@metric("forward bits (characters)", unit=UNIT, best="real", meaning=FORWARD)
def forward_characters(texts: TextSet, real: ReferenceTexts) -> float:
    return real.once(character_ngram).bits(texts.texts)


@metric("forward bits (words)", unit=UNIT, best="real", meaning=FORWARD)
def forward_words(texts: TextSet, real: ReferenceTexts) -> float:
    return real.once(word_ngram).bits(texts.texts)


@metric("reverse bits (characters)", unit=UNIT, best="low", meaning=REVERSE)
def reverse_characters(texts: TextSet, real: ReferenceTexts) -> float:
    return NgramScorer.fit(texts.texts, characters, CHARACTER_ORDER).bits(real.unseen)


@metric("reverse bits (words)", unit=UNIT, best="low", meaning=REVERSE)
def reverse_words(texts: TextSet, real: ReferenceTexts) -> float:
    return NgramScorer.fit(texts.texts, words, WORD_ORDER).bits(real.unseen)
