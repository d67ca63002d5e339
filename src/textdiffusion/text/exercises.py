"""Small tasks whose difficulty is their length: copying, sorting, closing brackets and adding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

_LETTERS = np.array(list("abcdefghij"))
_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}


class Copy:
    """The answer is the question: 8, 16 or 32 of ten letters."""

    levels: ClassVar[Mapping[str, Any]] = {"easy": 8, "medium": 16, "hard": 32}

    def width(self, level: str) -> int:
        """Question and answer."""
        return 2 * self.levels[level]

    def rows(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Letters drawn independently."""
        questions = ["".join(row) for row in rng.choice(_LETTERS, (count, self.levels[level]))]
        return [(question, self.answer(question)) for question in questions]

    def answer(self, question: str) -> str:
        """The only right answer."""
        return question

    def known(self, question: str) -> str:
        """Nothing."""
        return "." * len(question)

    def check(self, question: str, answer: str) -> bool:
        """Whether it is the right one."""
        return answer == self.answer(question)


class Sort(Copy):
    """The answer is the question's letters in the order of the alphabet."""

    def answer(self, question: str) -> str:
        """The only right answer."""
        return "".join(sorted(question))


class Brackets:
    """8, 16 or 32 brackets of three kinds with blanks; an answer fills them so that all brackets match.

    There may be several right answers. Balanced strings are drawn uniformly but for their kinds, and each bracket is
    left blank with probability 1/2, at least one.
    """

    levels: ClassVar[Mapping[str, Any]] = {"easy": 8, "medium": 16, "hard": 32}

    def width(self, level: str) -> int:
        """Question and answer."""
        return 2 * self.levels[level]

    def rows(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions, each with the answer it was made from."""
        draws = rng.random((count, 3, self.levels[level]))
        return [self._row(*row) for row in draws.tolist()]

    def _row(self, steps: list[float], kinds: list[float], blanks: list[float]) -> tuple[str, str]:
        answer, due = "", ""
        for number, (step, kind) in enumerate(zip(steps, kinds, strict=True)):
            left, depth = len(steps) - number, len(due)
            # The share of balanced continuations that go deeper (Arnold & Sleep 1980).
            if step < (left - depth) * (depth + 2) / (2 * left * (depth + 1)):
                answer += "([{"[int(kind * 3)]
                due += _CLOSED_BY[answer[-1]]
            else:
                answer, due = answer + due[-1], due[:-1]
        question = "".join("." if blank < 0.5 else mark for blank, mark in zip(blanks, answer, strict=True))
        return question if "." in question else "." + question[1:], answer

    def known(self, question: str) -> str:
        """The brackets that are not blank."""
        return question

    def check(self, question: str, answer: str) -> bool:
        """Whether all brackets match and those of the question are kept."""
        if len(answer) != len(question) or any(a not in (".", b) for a, b in zip(question, answer, strict=True)):
            return False
        due = ""
        for mark in answer:
            if mark in _CLOSED_BY:
                due += _CLOSED_BY[mark]
            elif not due or mark != due[-1]:
                return False
            else:
                due = due[:-1]
        return not due


class Addition:
    """The sum of two numbers of 3, 6 or 12 digits, with leading zeros throughout: 123+045=0168."""

    levels: ClassVar[Mapping[str, Any]] = {"easy": 3, "medium": 6, "hard": 12}

    def width(self, level: str) -> int:
        """Question and answer."""
        return 3 * self.levels[level] + 2

    def rows(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Numbers drawn uniformly."""
        digits = self.levels[level]
        pairs = rng.integers(0, 10**digits, (count, 2)).tolist()
        return [(f"{a:0{digits}}+{b:0{digits}}", f"{a + b:0{digits + 1}}") for a, b in pairs]

    def known(self, question: str) -> str:
        """Nothing; the answer has one digit more than the numbers."""
        return "." * (len(question) // 2 + 1)

    def check(self, question: str, answer: str) -> bool:
        """Whether it is the sum, in as many digits as it should have."""
        a, b = question.split("+")
        return answer == f"{int(a) + int(b):0{len(a) + 1}}"
