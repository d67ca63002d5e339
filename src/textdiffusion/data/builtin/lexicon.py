"""Words and conventions of the language in grammar.py."""

from __future__ import annotations

import re
from collections.abc import Callable

SINGULAR, PLURAL = 0, 1
Forms = tuple[str, str]  # singular and plural


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _regular_nouns(words: str) -> tuple[Forms, ...]:
    return tuple((word, word + "s") for word in words.split())


def _verbs(words: str) -> tuple[Forms, ...]:
    return tuple((word + "s", word) for word in words.split())


NOUNS = (
    *_regular_nouns("dog cat bird king queen farmer doctor owl eagle ant teacher sailor elephant otter"),
    *(("child", "children"), ("mouse", "mice"), ("goose", "geese"), ("wolf", "wolves"), ("fox", "foxes")),
    *(("man", "men"), ("woman", "women"), ("fairy", "fairies")),
)
THINGS = (
    *_regular_nouns("pear apple stone coin egg orange book acorn lamp ring onion shell"),
    *(("box", "boxes"), ("leaf", "leaves"), ("berry", "berries"), ("knife", "knives")),
)
ADJECTIVES = _words("old young small tall angry happy red odd quiet idle brave early ugly wise blue eager")
FEMALE = _words("anna clara emma julia maria sofia")
MALE = _words("ben david felix oscar paul tom")
NAMES = FEMALE + MALE
CONJUNCTIONS = ("and", "but", "because", "while")

# Verbs by what follows them; the two forms agree with a singular and a plural subject.
INTRANSITIVE = _verbs("sleep sing run laugh wait swim dream smile listen arrive")
TRANSITIVE = _verbs("see follow help hear find visit like paint thank remember")
DITRANSITIVE = _verbs("bring show offer lend sell")
SPEECH = _verbs("say know think hope believe")
GAIN, LOSE = ("finds", "buys", "gets", "picks"), ("loses", "sells", "drops", "eats")

MAX_DEPTH = 4  # of nested clauses, brackets and terms
MAX_NUMBER = 9999  # numbers are never negative
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def article(following: str) -> str:
    """`an` before a vowel, else `a`."""
    return "an" if following[0] in "aeiou" else "a"


def pronoun(name: str) -> str:
    """`she` or `he`, by name."""
    return "she" if name in FEMALE else "he"


def number_of(count: int) -> int:
    """The grammatical number of a noun after this count: SINGULAR for one, else PLURAL."""
    return SINGULAR if count == 1 else PLURAL


def join(words: list[str]) -> str:
    """Words with single spaces, but none before a comma, a full stop or ), and none after (."""
    return re.sub(r" (?=[,.)])|(?<=\() ", "", " ".join(words))


def split(text: str) -> list[str]:
    """The words, numbers and symbols of a text; the inverse of `join` for legal sentences."""
    return re.findall(r"[a-z]+|[0-9]+|[-()+*=,.]", text)
