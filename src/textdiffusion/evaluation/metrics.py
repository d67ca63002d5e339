"""Sample metrics; none of them is a verdict alone."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

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
    def from_lines(cls, lines: Iterable[str]) -> "ProduceSentences":
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
        return _mean(self.is_legal(text) for text in samples)

    def novel_and_legal(self, samples: Sequence[str]) -> float:
        """Fraction of the samples that are legal and not in the training text."""
        return _mean(self.is_legal(text) and text not in self.seen for text in samples)


def distinct(samples: Sequence[Sequence[object]], n: int) -> float:
    """Distinct n-grams over all n-grams of all samples, none across a border (Li et al. 2016, distinct-n).

    A sample is a string (character n-grams), or a list of words or ids. Raises ValueError if none is n long.
    """
    grams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    if not grams:
        raise ValueError(f"no sample is {n} long: distinct-{n} is undefined")
    return len(set(grams)) / len(grams)


def unigram_entropy(ids: Integer[np.ndarray, " n"]) -> float:
    """Entropy in bits of the ids' frequencies; low values betray repetition. Raises ValueError for no ids."""
    if not len(ids):
        raise ValueError("the entropy of no ids is undefined")
    p = np.unique(ids, return_counts=True)[1] / len(ids)
    return float(-(p * np.log2(p)).sum()) + 0.0


def _mean(values: Iterable[bool]) -> float:
    listed = list(values)
    if not listed:
        raise ValueError("a fraction of no samples is undefined")
    return sum(listed) / len(listed)
