"""A generated language with an exact checker: agreement, nesting and arithmetic, in any number of sentences.

    the old dogs that the child sees bring a pear to an owl.        number agrees, also across a clause; a or an
    anna says (the mice know (tom sleeps)).                         speech in brackets, nested
    ben has 3 pears and finds 5 pears, so he has 8 pears.           he or she by name, one or many, the sum
    (12 - 4) * 3 = 24.                                              nested terms with their value

Sentences use a-z, digits and ``( ) + - * = , .``, one per line. The grammar is LL(1): the next word decides how to
continue, so parsing is exact and no sentence is ambiguous.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from ...core.errors import UserError
from ..sources import Documents
from . import lexicon
from .generated import parse_size_and_seed, to_documents
from .grammar_parser import is_sentence
from .lexicon import PLURAL, SINGULAR, Forms

VERSION = 1  # raise it when the same seed would give other sentences

T = TypeVar("T")


def source(detail: str = "") -> Documents:
    """The data `grammar:SIZE:SEED`, from `detail` "SIZE:SEED", "SIZE" or "" (50,000 sentences, seed 0)."""
    numbers = parse_size_and_seed(detail.split(":") if detail else [])
    if numbers is None:
        raise UserError(f"grammar:{detail} is not valid. Write grammar, grammar:SIZE or grammar:SIZE:SEED.")
    size, seed = numbers
    return Documents(
        f"grammar:{size}:{seed}", lambda: to_documents(sentences(size, seed)), ["grammar", VERSION, size, seed]
    )


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """`count` legal sentences, determined by `seed`; a smaller count gives the first of them."""
    generator = _Generator(random.Random(seed))
    for _ in range(count):
        yield lexicon.join(generator.sentence())


def is_legal(text: str) -> bool:
    """Whether every line of `text` is a sentence of the language, including spaces; a final line break is allowed."""
    return all(map(is_sentence, text.removesuffix("\n").split("\n")))


class _Generator:
    """Samples sentences as lists of words."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def _choice(self, options: Sequence[T]) -> T:
        return options[int(self._rng.random() * len(options))]

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def sentence(self) -> list[str]:
        kind = self._rng.random()
        if kind < 0.2:
            return [*self.equation(), "."]
        if kind < 0.4:
            return [*self.count(), "."]
        words = self.clause(lexicon.MAX_DEPTH)
        if self._chance(0.25):
            words += [self._choice(lexicon.CONJUNCTIONS), *self.clause(lexicon.MAX_DEPTH)]
        return [*words, "."]

    def clause(self, depth: int) -> list[str]:
        subject, number = self.noun_phrase(depth)
        return subject + self.predicate(number, depth)

    def noun_phrase(self, depth: int) -> tuple[list[str], int]:
        """Words and their number, SINGULAR or PLURAL."""
        if self._chance(0.3):
            return [self._choice(lexicon.NAMES)], SINGULAR
        number = int(self._chance(0.5))
        adjectives = [self._choice(lexicon.ADJECTIVES) for _ in range(self._choice((0, 0, 1, 1, 2)))]
        words = [*adjectives, self._choice(lexicon.NOUNS)[number]]
        words = [self._determiner(number, words[0]), *words]
        if depth > 1 and self._chance(0.25):
            words.append("that")
            if self._chance(0.5):
                words += self.predicate(number, depth - 1)
            else:
                subject, subject_number = self.noun_phrase(depth - 1)
                words += [*subject, self._choice(lexicon.TRANSITIVE)[subject_number]]
        return words, number

    def _determiner(self, number: int, following: str) -> str:
        if number == PLURAL:
            return self._choice(("the", "some", "these"))
        word = self._choice(("the", "a", "every", "this"))
        return lexicon.article(following) if word == "a" else word

    def predicate(self, number: int, depth: int) -> list[str]:
        kind = self._rng.random()
        if kind < 0.3:
            return [self._choice(lexicon.INTRANSITIVE)[number]]
        if kind < 0.65:
            return [self._choice(lexicon.TRANSITIVE)[number], *self.noun_phrase(depth - 1)[0]]
        if kind < 0.85 or depth <= 1:
            thing_number = int(self._chance(0.5))
            thing = self._choice(lexicon.THINGS)[thing_number]
            objects = [self._determiner(thing_number, thing), thing, "to", *self.noun_phrase(depth - 1)[0]]
            return [self._choice(lexicon.DITRANSITIVE)[number], *objects]
        return [self._choice(lexicon.SPEECH)[number], "(", *self.clause(depth - 1), ")"]

    def count(self) -> list[str]:
        person, thing = self._choice(lexicon.NAMES), self._choice(lexicon.THINGS)
        total = int(self._rng.random() * 21)
        words = [person, "has", *_amount(total, thing)]
        for _ in range(self._choice((1, 1, 2))):
            change = 1 + int(self._rng.random() * 9)
            gains = change > total or self._chance(0.5)
            total += change if gains else -change
            words += ["and", self._choice(lexicon.GAIN if gains else lexicon.LOSE), *_amount(change, thing)]
        return [*words, ",", "so", lexicon.pronoun(person), "has", *_amount(total, thing)]

    def equation(self) -> list[str]:
        words, value = self.term(lexicon.MAX_DEPTH)
        return [*words, "=", str(value)]

    def term(self, depth: int) -> tuple[list[str], int]:
        """Words and their value."""
        left, a = self.operand(depth - 1)
        right, b = self.operand(depth - 1)
        possible = [sign for sign, result in lexicon.OPERATIONS.items() if 0 <= result(a, b) <= lexicon.MAX_NUMBER]
        if not possible:  # both are large and a < b, so b - a is possible
            left, a, right, b, possible = right, b, left, a, ["-"]
        sign = self._choice(possible)
        return [*left, sign, *right], lexicon.OPERATIONS[sign](a, b)

    def operand(self, depth: int) -> tuple[list[str], int]:
        """Words and their value."""
        if depth > 0 and self._chance(0.3):
            words, value = self.term(depth)
            return ["(", *words, ")"], value
        value = int(self._rng.random() * self._choice((10, 10, 100)))
        return [str(value)], value


def _amount(count: int, thing: Forms) -> list[str]:
    return [str(count), thing[lexicon.number_of(count)]]
