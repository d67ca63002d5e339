"""An exact parser of the language in grammar.py."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import lexicon
from .lexicon import PLURAL, SINGULAR, Forms

_DETERMINERS = {"a": SINGULAR, "an": SINGULAR, "every": SINGULAR, "this": SINGULAR, "some": PLURAL, "these": PLURAL}
_VERBS = {
    forms[number]: (verbs, number)
    for verbs in (lexicon.INTRANSITIVE, lexicon.TRANSITIVE, lexicon.DITRANSITIVE, lexicon.SPEECH)
    for forms in verbs
    for number in (SINGULAR, PLURAL)
}


def _number_by_word(nouns: Sequence[Forms]) -> dict[str, int]:
    return {forms[number]: number for forms in nouns for number in (SINGULAR, PLURAL)}


_NOUNS, _THINGS = _number_by_word(lexicon.NOUNS), _number_by_word(lexicon.THINGS)


def is_sentence(line: str) -> bool:
    """Whether a line is one legal sentence, including its spaces."""
    words = lexicon.split(line)
    if lexicon.join(words) != line:
        return False
    parser = _Parser(words)
    try:
        parser.sentence()
    except _IllegalError:
        return False
    return parser.at_end


class _IllegalError(Exception):
    """The words are not a sentence."""


class _Parser:
    """Recursive descent, one method for each method of the generator. Raises _IllegalError."""

    def __init__(self, words: list[str]) -> None:
        self._words, self._position = words, 0

    @property
    def at_end(self) -> bool:
        return self._position == len(self._words)

    @property
    def _next(self) -> str:
        return "" if self.at_end else self._words[self._position]

    def _take(self, *allowed: str) -> str:
        word = self._next
        if not word or (allowed and word not in allowed):
            raise _IllegalError
        self._position += 1
        return word

    def sentence(self) -> None:
        if self._next == "(" or self._next.isdigit():
            self.equation()
        elif self._next in lexicon.NAMES and self._words[self._position + 1 : self._position + 2] == ["has"]:
            self.count()
        else:
            self.clause(lexicon.MAX_DEPTH)
            if self._next in lexicon.CONJUNCTIONS:
                self._take()
                self.clause(lexicon.MAX_DEPTH)
        self._take(".")

    def clause(self, depth: int) -> None:
        self.predicate(self.noun_phrase(depth), depth)

    def noun_phrase(self, depth: int) -> int:
        """The number of the phrase, SINGULAR or PLURAL."""
        if self._next in lexicon.NAMES:
            self._take()
            return SINGULAR
        determiner = self._take("the", *_DETERMINERS)
        first = self._next
        for _ in range(2):
            if self._next in lexicon.ADJECTIVES:
                self._take()
        number = self._noun(determiner, first, _NOUNS)
        if self._next == "that":
            self._check(depth > 1)
            self._take()
            if self._next in _VERBS:
                self.predicate(number, depth - 1)
            else:
                subject_number = self.noun_phrase(depth - 1)
                self._check(_VERBS.get(self._take()) == (lexicon.TRANSITIVE, subject_number))
        return number

    def _noun(self, determiner: str, first: str, nouns: dict[str, int]) -> int:
        """The number of the noun here; `first` is the word after the determiner."""
        number = nouns[self._take(*nouns)]
        self._check(_DETERMINERS.get(determiner, number) == number)
        self._check(determiner not in ("a", "an") or determiner == lexicon.article(first))
        return number

    def predicate(self, number: int, depth: int) -> None:
        verbs, verb_number = _VERBS.get(self._take(), ((), number))
        self._check(bool(verbs) and verb_number == number)
        if verbs == lexicon.TRANSITIVE:
            self.noun_phrase(depth - 1)
        elif verbs == lexicon.DITRANSITIVE:
            determiner = self._take("the", *_DETERMINERS)
            self._noun(determiner, self._next, _THINGS)
            self._take("to")
            self.noun_phrase(depth - 1)
        elif verbs == lexicon.SPEECH:
            self._check(depth > 1)
            self._take("(")
            self.clause(depth - 1)
            self._take(")")

    def count(self) -> None:
        person = self._take()
        self._take("has")
        total, thing = self._amount(lexicon.THINGS)
        changes = 0
        while self._next == "and" and changes < 2:
            self._take()
            gains = self._take(*lexicon.GAIN, *lexicon.LOSE) in lexicon.GAIN
            change, _ = self._amount((thing,))
            total += change if gains else -change
            changes += 1
            self._check(change > 0 and total >= 0)
        self._check(changes > 0)
        for word in (",", "so", lexicon.pronoun(person), "has"):
            self._take(word)
        self._check(self._amount((thing,))[0] == total)

    def _amount(self, things: Sequence[Forms]) -> tuple[int, Forms]:
        """A number and one of the things in the right form."""
        count = self.number()
        word = self._take(*_THINGS)
        for forms in things:
            if forms[lexicon.number_of(count)] == word:
                return count, forms
        raise _IllegalError

    def equation(self) -> None:
        value = self.term(lexicon.MAX_DEPTH)
        self._take("=")
        self._check(self.number() == value)

    def term(self, depth: int) -> int:
        left = self.operand(depth - 1)
        operation = lexicon.OPERATIONS[self._take(*lexicon.OPERATIONS)]
        value = operation(left, self.operand(depth - 1))
        self._check(0 <= value <= lexicon.MAX_NUMBER)
        return value

    def operand(self, depth: int) -> int:
        if self._next != "(":
            return self.number()
        self._check(depth > 0)
        self._take("(")
        value = self.term(depth)
        self._take(")")
        return value

    def number(self) -> int:
        word = self._take()
        self._check(re.fullmatch(r"0|[1-9][0-9]{0,3}", word) is not None)
        return int(word)

    def _check(self, legal: bool) -> None:
        if not legal:
            raise _IllegalError
