"""Languages whose sentences can be checked exactly; a corpus is known by its own lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..text import grammar
from .metrics import share

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
