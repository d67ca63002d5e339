"""Choosing among texts: the best by a score, the one the others agree with, each only once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import UserError

if TYPE_CHECKING:
    from .api import TextDiffusion

Score = Callable[[Sequence[str]], Sequence[float]]
"""How good each of some texts is."""
Utility = Callable[[str, str], float]
"""How good a text is if another one is right."""


def best_of(texts: Sequence[str], score: Score) -> str:
    """The text of the highest score; of equals the first."""
    _some(texts)
    return texts[int(np.argmax(score(texts)))]


def mbr(texts: Sequence[str], utility: Utility | None = None) -> str:
    """The text of the highest mean utility against all others, `gram_f` unless given; of equals the first.

    Minimum Bayes risk (Kumar and Byrne 2004), with the texts themselves as draws of what may be right.
    """
    _some(texts)
    utility = gram_f if utility is None else utility
    means = [sum(utility(text, other) for j, other in enumerate(texts) if i != j) for i, text in enumerate(texts)]
    return texts[int(np.argmax(means))]


def distinct(texts: Sequence[str]) -> list[str]:
    """The texts in their order, each once."""
    return list(dict.fromkeys(texts))


def fluency(run: TextDiffusion, draws: int = 2, *, source: str | None = None, label: str | None = None) -> Score:
    """A score for `best_of`: minus the bits per character under a run, all texts under the same draws of its bound,
    given the source and the label that they were written for.

    It favours what is likely, thus common. An empty text scores lowest.
    """

    def score(texts: Sequence[str]) -> list[float]:
        bits = iter(run.score([text for text in texts if text], draws=draws, source=source, label=label))
        return [-next(bits).bits if text else -np.inf for text in texts]

    return score


def gram_f(text: str, other: str, longest: int = 4) -> float:
    """The mean F-score of shared n-grams of words, n from 1 to `longest` or to the words of the longer text; 0 to 1."""
    a, b = text.split(), other.split()
    longest = min(longest, max(len(a), len(b)))
    if not longest:
        return 1.0
    scores = []
    for n in range(1, longest + 1):
        mine, its = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (a, b))
        scores.append(2 * (mine & its).total() / max((mine + its).total(), 1))
    return sum(scores) / longest


def edit_similarity(text: str, other: str) -> float:
    """1 - the characters to insert, delete or replace / the characters of the longer text; 0 to 1."""
    row = np.arange(len(other) + 1)
    there = np.array(list(other), dtype=object)
    for i, character in enumerate(text, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (there != character))
        # An insertion costs one more than what is left of it: a running minimum, as costs rise by one a column.
        row = np.minimum.accumulate(np.append(i, changed) - np.arange(len(row))) + np.arange(len(row))
    return 1.0 - float(row[-1]) / max(len(text), len(other), 1)


def _some(texts: Sequence[str]) -> None:
    if not texts:
        raise UserError("There are no texts to choose from.")
