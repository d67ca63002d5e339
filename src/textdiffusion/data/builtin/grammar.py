"""A generated language with an exact checker: agreement, nesting and arithmetic, as many sentences as wanted.

    the old dogs that the child sees bring a pear to an owl.        number agrees, also across a clause; a or an
    anna says (the mice know (tom sleeps)).                         speech in brackets, nested
    ben has 3 pears and finds 5 pears, so he has 8 pears.           he or she by name, one or many, the sum
    (12 - 4) * 3 = 24.                                              nested terms with their value

Sentences use a-z, digits and ``( ) + - * = , .``; one sentence is a line. The grammar is LL(1): one word decides how to
go on, so parsing is exact and no sentence has two readings.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from ...core.errors import UserError
from ..sources import Documents

SINGULAR, PLURAL = 0, 1


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _regular(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((word, word + "s") for word in words.split())


def _verbs(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((word + "s", word) for word in words.split())


# Each pair is singular and plural.
NOUNS = (
    *_regular("dog cat bird king queen farmer doctor owl eagle ant teacher sailor elephant otter"),
    *(("child", "children"), ("mouse", "mice"), ("goose", "geese"), ("wolf", "wolves"), ("fox", "foxes")),
    *(("man", "men"), ("woman", "women"), ("fairy", "fairies")),
)


THINGS = (
    *_regular("pear apple stone coin egg orange book acorn lamp ring onion shell"),
    *(("box", "boxes"), ("leaf", "leaves"), ("berry", "berries"), ("knife", "knives")),
)


ADJECTIVES = _words("old young small tall angry happy red odd quiet idle brave early ugly wise blue eager")


SHE = _words("anna clara emma julia maria sofia")


HE = _words("ben david felix oscar paul tom")


# Each pair is the verb of a singular and of a plural subject.
SLEEP = _verbs("sleep sing run laugh wait swim dream smile listen arrive")


SEE = _verbs("see follow help hear find visit like paint thank remember")


BRING = _verbs("bring show offer lend sell")


SAY = _verbs("say know think hope believe")


GAIN, LOSE = ("finds", "buys", "gets", "picks"), ("loses", "sells", "drops", "eats")


JOIN = ("and", "but", "because", "while")


VERSION = 1  # raise it when the same seed would give other sentences


DEPTH = 4  # of clauses, brackets and terms inside each other


LARGEST = 9999  # of any number; numbers are never negative


_NAMES = frozenset(SHE + HE)


_NOUNS = {pair[number]: number for pair in NOUNS for number in (SINGULAR, PLURAL)}


_THINGS = {pair[number]: number for pair in THINGS for number in (SINGULAR, PLURAL)}


_VERBS = {
    pair[number]: (kind, number)
    for kind, pairs in (("sleep", SLEEP), ("see", SEE), ("bring", BRING), ("say", SAY))
    for pair in pairs
    for number in (SINGULAR, PLURAL)
}


_DETERMINERS = {"a": SINGULAR, "an": SINGULAR, "every": SINGULAR, "this": SINGULAR, "some": PLURAL, "these": PLURAL}


_TOKEN = re.compile(r"[a-z]+|[0-9]+|[-()+*=,.]")


_OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def source(detail: str = "") -> Documents:
    """The data `grammar`, `grammar:SIZE` or `grammar:SIZE:SEED`: so many sentences (50,000), a thousand a document."""
    parts = detail.split(":") if detail else []
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts) or parts[:1] == ["0"]:
        raise UserError(f"grammar:{detail} is not understood; write grammar, grammar:SIZE or grammar:SIZE:SEED.")
    size, seed = [*map(int, parts), *(50_000, 0)[len(parts) :]]

    def documents() -> Iterator[str]:
        lines = sentences(size, seed)
        while block := "".join(f"{line}\n" for _, line in zip(range(1000), lines, strict=False)):
            yield block

    return Documents(f"grammar:{size}:{seed}", documents, ["grammar", VERSION, size, seed])


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """`count` legal sentences, a function of `seed`; fewer are the beginning of more."""
    writer = _Writer(random.Random(seed))
    for _ in range(count):
        yield _joined(writer.sentence())


def is_legal(text: str) -> bool:
    """Whether every line of `text` is a sentence of the language, spaces included (a last line break is allowed)."""
    return all(_legal_line(line) for line in text.removesuffix("\n").split("\n"))


def _legal_line(line: str) -> bool:
    words = _TOKEN.findall(line)
    if _joined(words) != line:
        return False
    try:
        reader = _Reader(words)
        reader.sentence()
    except _Illegal:
        return False
    return reader.ended()


def _joined(words: list[str]) -> str:
    """Words with single spaces, none before a comma, a full stop or ), none after (."""
    return re.sub(r" (?=[,.)])|(?<=\() ", "", " ".join(words))


class _Writer:
    """Draws sentences."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def _one(self, choices):
        return choices[int(self._draw.random() * len(choices))]

    def _chance(self, probability: float) -> bool:
        return self._draw.random() < probability

    def sentence(self) -> list[str]:
        kind = self._draw.random()
        if kind < 0.2:
            return [*self.equation(), "."]
        if kind < 0.4:
            return [*self.count(), "."]
        words = self.clause(DEPTH)
        if self._chance(0.25):
            words += [self._one(JOIN), *self.clause(DEPTH)]
        return [*words, "."]

    def clause(self, depth: int) -> list[str]:
        subject, number = self.phrase(depth)
        return subject + self.predicate(number, depth)

    def phrase(self, depth: int) -> tuple[list[str], int]:
        if self._chance(0.3):
            return [self._one(SHE + HE)], SINGULAR
        number = int(self._chance(0.5))
        words = [self._one(ADJECTIVES) for _ in range(self._one((0, 0, 1, 1, 2)))] + [self._one(NOUNS)[number]]
        words = [self._determiner(number, words[0]), *words]
        if depth > 1 and self._chance(0.25):
            words.append("that")
            if self._chance(0.5):
                words += self.predicate(number, depth - 1)
            else:
                other, other_number = self.phrase(depth - 1)
                words += [*other, self._one(SEE)[other_number]]
        return words, number

    def _determiner(self, number: int, following: str) -> str:
        if number == PLURAL:
            return self._one(("the", "some", "these"))
        word = self._one(("the", "a", "every", "this"))
        return _article(following) if word == "a" else word

    def predicate(self, number: int, depth: int) -> list[str]:
        kind = self._draw.random()
        if kind < 0.3:
            return [self._one(SLEEP)[number]]
        if kind < 0.65:
            return [self._one(SEE)[number], *self.phrase(depth - 1)[0]]
        if kind < 0.85 or depth <= 1:
            amount = int(self._chance(0.5))
            thing = self._one(THINGS)[amount]
            given = [self._determiner(amount, thing), thing, "to", *self.phrase(depth - 1)[0]]
            return [self._one(BRING)[number], *given]
        return [self._one(SAY)[number], "(", *self.clause(depth - 1), ")"]

    def count(self) -> list[str]:
        person, thing = self._one(SHE + HE), self._one(THINGS)
        total = int(self._draw.random() * 21)
        words = [person, "has", *_amount(total, thing)]
        for _ in range(self._one((1, 1, 2))):
            change = 1 + int(self._draw.random() * 9)
            gain = change > total or self._chance(0.5)
            total += change if gain else -change
            words += ["and", self._one(GAIN if gain else LOSE), *_amount(change, thing)]
        return [*words, ",", "so", "she" if person in SHE else "he", "has", *_amount(total, thing)]

    def equation(self) -> list[str]:
        words, value = self.term(DEPTH)
        return [*words, "=", str(value)]

    def term(self, depth: int) -> tuple[list[str], int]:
        left, a = self.operand(depth - 1)
        right, b = self.operand(depth - 1)
        possible = [sign for sign, operation in _OPERATIONS.items() if 0 <= operation(a, b) <= LARGEST]
        if not possible:  # both are large, so a - b is not, or b - a
            left, a, right, b, possible = right, b, left, a, ["-"]
        sign = self._one(possible)
        return [*left, sign, *right], _OPERATIONS[sign](a, b)

    def operand(self, depth: int) -> tuple[list[str], int]:
        if depth > 0 and self._chance(0.3):
            words, value = self.term(depth)
            return ["(", *words, ")"], value
        value = int(self._draw.random() * self._one((10, 10, 100)))
        return [str(value)], value


def _article(following: str) -> str:
    return "an" if following[0] in "aeiou" else "a"


def _amount(number: int, thing: tuple[str, str]) -> list[str]:
    return [str(number), thing[SINGULAR if number == 1 else PLURAL]]


class _Illegal(Exception):
    """The words are no sentence."""


class _Reader:
    """Parses words by recursive descent, each method one rule of `_Writer`'s; raises _Illegal."""

    def __init__(self, words: list[str]) -> None:
        self._words, self._place = words, 0

    def ended(self) -> bool:
        return self._place == len(self._words)

    @property
    def _next(self) -> str:
        return "" if self.ended() else self._words[self._place]

    def _take(self, *allowed: str) -> str:
        word = self._next
        if not word or (allowed and word not in allowed):
            raise _Illegal
        self._place += 1
        return word

    def sentence(self) -> None:
        if self._next == "(" or self._next.isdigit():
            value = self.term(DEPTH)
            self._take("=")
            if self.number() != value:
                raise _Illegal
        elif self._next in _NAMES and self._words[self._place + 1 : self._place + 2] == ["has"]:
            self.count()
        else:
            self.clause(DEPTH)
            if self._next in JOIN:
                self._take()
                self.clause(DEPTH)
        self._take(".")

    def clause(self, depth: int) -> None:
        self.predicate(self.phrase(depth), depth)

    def phrase(self, depth: int) -> int:
        if self._next in _NAMES:
            self._take()
            return SINGULAR
        determiner = self._take("the", *_DETERMINERS)
        first = self._next
        for _ in range(2):
            if self._next in ADJECTIVES:
                self._take()
        number = self._noun(determiner, first, _NOUNS)
        if self._next == "that":
            if depth <= 1:
                raise _Illegal
            self._take()
            if self._next in _VERBS:
                self.predicate(number, depth - 1)
            else:
                self._verb("see", self.phrase(depth - 1))
        return number

    def _noun(self, determiner: str, first: str, nouns: dict[str, int]) -> int:
        """The number of the noun phrase that goes on here; `first` is the word after the determiner."""
        number = nouns[self._take(*nouns)]
        if _DETERMINERS.get(determiner, number) != number:
            raise _Illegal
        if determiner in ("a", "an") and determiner != _article(first):
            raise _Illegal
        return number

    def _verb(self, kind: str, number: int) -> None:
        if _VERBS.get(self._take()) != (kind, number):
            raise _Illegal

    def predicate(self, number: int, depth: int) -> None:
        kind, _ = _VERBS.get(self._next, ("", 0))
        self._verb(kind, number)
        if kind == "see":
            self.phrase(depth - 1)
        elif kind == "bring":
            determiner = self._take("the", *_DETERMINERS)
            self._noun(determiner, self._next, _THINGS)
            self._take("to")
            self.phrase(depth - 1)
        elif kind == "say":
            if depth <= 1:
                raise _Illegal
            self._take("(")
            self.clause(depth - 1)
            self._take(")")

    def count(self) -> None:
        person = self._take()
        self._take("has")
        total, thing = self._amount(None)
        changes = 0
        while self._next == "and" and changes < 2:
            self._take()
            gain = self._take(*GAIN, *LOSE) in GAIN
            change, _ = self._amount(thing)
            total += change if gain else -change
            changes += 1
            if change == 0 or total < 0:
                raise _Illegal
        if changes == 0:
            raise _Illegal
        self._take(",")
        self._take("so")
        self._take("she" if person in SHE else "he")
        self._take("has")
        if self._amount(thing)[0] != total:
            raise _Illegal

    def _amount(self, thing: tuple[str, str] | None) -> tuple[int, tuple[str, str]]:
        """A number and the right form of `thing` (None: of anything)."""
        number = self.number()
        form = SINGULAR if number == 1 else PLURAL
        word = self._take(*_THINGS)
        for pair in THINGS if thing is None else (thing,):
            if pair[form] == word:
                return number, pair
        raise _Illegal

    def term(self, depth: int) -> int:
        left = self.operand(depth - 1)
        operation = _OPERATIONS[self._take(*_OPERATIONS)]
        value = operation(left, self.operand(depth - 1))
        if not 0 <= value <= LARGEST:
            raise _Illegal
        return value

    def operand(self, depth: int) -> int:
        if self._next != "(":
            return self.number()
        if depth <= 0:
            raise _Illegal
        self._take("(")
        value = self.term(depth)
        self._take(")")
        return value

    def number(self) -> int:
        word = self._take()
        if not re.fullmatch(r"0|[1-9][0-9]{0,3}", word):
            raise _Illegal
        return int(word)
