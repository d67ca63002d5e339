"""Generative perplexity under a judge, and the entropy without which it means nothing."""

from __future__ import annotations

from ..perplexity import Judge, Perplexity
from .base import ReferenceTexts, TextSet, metric


def _has_judge(real: ReferenceTexts) -> bool:
    return real.judge is not None


def _judged(texts: TextSet, judge: Judge) -> Perplexity:
    return judge(texts.texts)


@metric(
    "generative perplexity",
    unit="per token",
    best="real",
    meaning="under the judge; compare only at equal token entropy",
    applies=_has_judge,
)
def generative_perplexity(texts: TextSet, real: ReferenceTexts) -> float:
    assert real.judge is not None
    return texts.once(_judged, real.judge).perplexity


@metric(
    "token entropy",
    unit="bits per token",
    best="real",
    meaning="of the judge's tokens within a text; it belongs to generative perplexity",
    applies=_has_judge,
)
def token_entropy(texts: TextSet, real: ReferenceTexts) -> float:
    assert real.judge is not None
    return texts.once(_judged, real.judge).entropy
