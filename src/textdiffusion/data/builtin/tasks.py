"""Tasks whose answers are checked exactly, as built-in data: a row is a question, `=` and its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from ...core.errors import UserError
from ..sources import Documents
from .sudoku import Sudoku

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


VERSION = 1  # raise it when other rows come out


SIZE, BLOCK = 50_000, 1000  # rows where none are asked for, and rows of a document


@runtime_checkable
class Task(Protocol):
    """Questions with their answers in some levels of difficulty; all rows of a level have the same width."""

    levels: ClassVar[Mapping[str, Any]]
    """By name, the default first."""

    def width(self, level: str) -> int:
        """Characters of a question and its answer together."""
        ...

    def rows(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions with a right answer each, drawn with `rng`."""
        ...

    def known(self, question: str) -> str:
        """The answer as far as the question shows it, `.` for what is to be filled in. It has the answer's width."""
        ...

    def check(self, question: str, answer: str) -> bool:
        """Whether an answer, which may be any text, is right."""
        ...


TASKS: dict[str, Task] = {
    "sudoku": Sudoku(),
    "copy": Copy(),
    "sort": Sort(),
    "brackets": Brackets(),
    "addition": Addition(),
}


@dataclass(frozen=True)
class Exercise:
    """So many rows of a task, a function of `seed`. Every question occurs once, so that no two parts share one."""

    name: str
    task: Task
    level: str
    size: int
    seed: int

    def source(self) -> Documents:
        """The rows as text, a thousand a document. Documents of sudoku share no grid."""
        kept = cache(lambda: list(self._blocks()))  # read more than once
        about = [self.name, VERSION, self.level, self.size, self.seed]
        return Documents(":".join(map(str, [self.name, *about[2:]])), lambda: iter(kept()), about)

    def rows(self) -> Iterator[str]:
        """Fewer are the beginning of more. Raises UserError where there are not enough different questions."""
        seen: set[str] = set()
        block = 0
        number = [*self.task.levels].index(self.level)
        while len(seen) < self.size:
            before = len(seen)
            rng = np.random.default_rng([self.seed, number, block])
            for question, answer in self.task.rows(self.level, BLOCK, rng):
                if question not in seen and len(seen) < self.size:
                    seen.add(question)
                    yield f"{question}={answer}"
            block += 1
            if (len(seen) - before) * 10 < min(BLOCK, self.size - before):
                raise UserError(f"{self.name}:{self.level} has too few different questions for {self.size} rows.")

    def _blocks(self) -> Iterator[str]:
        rows = self.rows()
        while block := "".join(f"{row}\n" for _, row in zip(range(BLOCK), rows, strict=False)):
            yield block

    def settings(self) -> dict[str, Any]:
        """How such rows are best read: fields of TextConfig."""
        return {
            "layout": "lines",
            "length": self.task.width(self.level) + 2,  # with = and the end
            "split": "documents",
            "packing": False,
            "too_long": "error",
            "tokenizer": "characters",
            "vocab_size": 0,
            "tokenizer_path": "",
            "subword_sampling": 0.0,
            "normaliser": "none",
            "mask": "question",
        }

    def given(self, row: str) -> Bool[np.ndarray, " n"]:
        """Which characters of a row are given: the question, and what it shows of the answer."""
        question, _, answer = row.partition("=")
        known = [mark != "." for mark in self.task.known(question)[: len(answer)]]
        return np.array([True] * (len(row) - len(answer)) + known)

    def solved(self, row: str) -> bool:
        """Whether a row is a question with a right answer."""
        question, _, answer = row.partition("=")
        return self.task.check(question, answer)


def exercise(data: str) -> Exercise | None:
    """What `data` names: TASK, TASK:LEVEL, TASK:LEVEL:SIZE or TASK:LEVEL:SIZE:SEED; None where it names no task.

    Raises UserError for levels and numbers that are none.
    """
    name, *parts = data.split(":")
    if name not in TASKS:
        return None
    levels = [*TASKS[name].levels]
    level, *numbers = parts or levels[:1]
    usable = len(numbers) <= 2 and all(part.isascii() and part.isdigit() for part in numbers)
    if level not in levels or not usable or numbers[:1] == ["0"]:
        raise UserError(
            f"{data} is not understood; write {name}:LEVEL, {name}:LEVEL:SIZE or {name}:LEVEL:SIZE:SEED, with "
            f"{', '.join(levels)} for LEVEL."
        )
    size, seed = [*map(int, numbers), *(SIZE, 0)[len(numbers) :]]
    return Exercise(name, TASKS[name], level, size, seed)
