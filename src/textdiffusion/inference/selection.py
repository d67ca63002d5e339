"""Choosing among texts: the best by a score, the one most like the others, each distinct text once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ..core.errors import UserError
from .api import TextDiffusion

Score = Callable[[Sequence[str]], Sequence[float]]
"""A quality per text; higher is better."""
Utility = Callable[[str, str], float]
"""How good a text is where another one is the truth."""


def best_of(texts: Sequence[str], score: Score) -> str:
    """The text with the highest score; the first of equals."""
    _check_not_empty(texts)
    return texts[int(np.argmax(score(texts)))]


def mbr(texts: Sequence[str], utility: Utility | None = None) -> str:
    """The text with the highest mean utility (`gram_f` by default) against all others; the first of equals.

    Minimum Bayes risk (Kumar and Byrne 2004), with the texts themselves as samples of the truth.
    """
    _check_not_empty(texts)
    utility = gram_f if utility is None else utility
    means = [sum(utility(text, other) for j, other in enumerate(texts) if i != j) for i, text in enumerate(texts)]
    return texts[int(np.argmax(means))]


def distinct(texts: Sequence[str]) -> list[str]:
    """The distinct texts, in order of first appearance."""
    return list(dict.fromkeys(texts))


def fluency(
    run: TextDiffusion,
    draws: int = 2,
    *,
    source: str | None = None,
    label: str | int | None = None,
    prefix: str = "",
) -> Score:
    """A score for `best_of`: minus the bits per character under a run, given source, label and prefix of the texts.

    All texts share the random draws of the bound, `draws` (>= 2) passes. The score favours likely, thus common texts.
    An empty text scores lowest.
    """

    def score(texts: Sequence[str]) -> list[float]:
        written = [text for text in texts if text]
        bits = iter(run.score(written, draws=draws, source=source, label=label, prefix=prefix))
        return [-next(bits).bits if text else -np.inf for text in texts]

    return score


def gram_f(text: str, other: str, longest: int = 4) -> float:
    """The mean F-score, in [0, 1], of shared n-grams of words, for n up to `longest` or the longer text."""
    a, b = text.split(), other.split()
    longest = min(longest, max(len(a), len(b)))
    if not longest:
        return 1.0
    scores = []
    for n in range(1, longest + 1):
        grams, other_grams = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (a, b))
        scores.append(2 * (grams & other_grams).total() / max((grams + other_grams).total(), 1))
    return sum(scores) / longest


def edit_similarity(text: str, other: str) -> float:
    """1 - edit distance / length of the longer text, in characters; in [0, 1]."""
    row = np.arange(len(other) + 1)
    targets = np.array(list(other), dtype=object)
    for i, character in enumerate(text, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (targets != character))
        # An insertion costs one more than the cell before it: a running minimum, as costs rise by one per column.
        row = np.minimum.accumulate(np.append(i, changed) - np.arange(len(row))) + np.arange(len(row))
    return 1.0 - float(row[-1]) / max(len(text), len(other), 1)


def _check_not_empty(texts: Sequence[str]) -> None:
    if not texts:
        raise UserError("There are no texts to choose from.")
