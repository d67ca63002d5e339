"""Whether lines are sentences of a language that can be checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ...data.builtin import grammar
from ..ngram_statistics import fraction
from .base import ReferenceTexts, TextSet, metric

Checker = Callable[[str], bool]
"""Whether a line is a sentence of the language."""

_PRODUCE_SENTENCE = re.compile(r"The (\S+) (\S.*) is (\S+)\.")


@dataclass(frozen=True)
class ProduceSentences:
    """The closed language "The COLOUR PRODUCE is STATE." with the words of a training text.

    A sentence is legal if it combines one colour, one produce and one state of that text in this frame; it is novel if
    the training text does not contain it.
    """

    colours: frozenset[str]
    produce: frozenset[str]
    states: frozenset[str]
    train: frozenset[str]

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> ProduceSentences:
        """Raises ValueError for a line that does not have the frame."""
        train = frozenset(lines)
        words: tuple[set[str], ...] = (set(), set(), set())
        for line in train:
            match = _PRODUCE_SENTENCE.fullmatch(line)
            if match is None:
                raise ValueError(f"{line!r} does not have the form 'The COLOUR PRODUCE is STATE.'")
            for kind, word in zip(words, match.groups(), strict=True):
                kind.add(word)
        return cls(*map(frozenset, words), train=train)

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
        return fraction((self.is_legal(text) for text in samples), "samples")

    def novel_and_legal(self, samples: Sequence[str]) -> float:
        """Fraction of the samples that are legal and not in the training text."""
        return fraction((self.is_legal(text) and text not in self.train for text in samples), "samples")


def find_checker(lines: Sequence[str]) -> Checker | None:
    """The checker of the language that all lines of a training text belong to; None where the language is unknown."""
    if not lines:
        return None
    try:
        return ProduceSentences.from_lines(lines).is_legal
    except ValueError:
        return grammar.is_legal if all(map(grammar.is_legal, lines[:1000])) else None


def _train_lines(real: ReferenceTexts) -> dict[str, None]:
    return dict.fromkeys(line for text in real.train for line in text.split("\n") if line)


def _checker(real: ReferenceTexts) -> Checker | None:
    return find_checker(list(real.once(_train_lines)))


def _has_checker(real: ReferenceTexts) -> bool:
    return real.once(_checker) is not None


def _lines(texts: TextSet, real: ReferenceTexts) -> list[tuple[str, bool]]:
    """Every complete line and whether it is legal."""
    checker = real.once(_checker)
    assert checker is not None
    return [(line, checker(line)) for text in texts.texts for line in real.split_lines(text)]


@metric("legal", unit="fraction", best="high", meaning="lines that the language allows", applies=_has_checker)
def legal(texts: TextSet, real: ReferenceTexts) -> float:
    return fraction((is_legal for _, is_legal in _lines(texts, real)), "lines")


@metric(
    "novel and legal",
    unit="fraction",
    best="high",
    meaning="legal lines that the training text does not contain",
    applies=_has_checker,
)
def novel_and_legal(texts: TextSet, real: ReferenceTexts) -> float:
    seen = real.once(_train_lines)
    return fraction((is_legal and line not in seen for line, is_legal in _lines(texts, real)), "lines")
