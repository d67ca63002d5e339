"""Tasks with exactly checked answers as built-in data. A row of text is a question with its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from ...core.errors import UserError
from ..sources import Documents
from .generated import DOCUMENT, parse_size_and_seed, to_documents
from .sudoku import Sudoku

VERSION = 2  # raise it when the same seed would give other rows

_LETTERS = np.array(list("abcdefghij"))
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@runtime_checkable
class Task(Protocol):
    """Questions and answers at several levels of difficulty; all rows of a level have the same width."""

    levels: ClassVar[Mapping[str, Any]]
    """Levels by name, the default first."""

    box: ClassVar[int]
    """Side of the boxes of the square grid that people read a row as (0: a line)."""

    def width(self, level: str) -> int:
        """Characters of a row."""
        ...

    def sample(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """`count` random questions, each with a correct answer."""
        ...

    def row(self, question: str, answer: str) -> str:
        """The text of a question with its answer."""
        ...

    def blank_row(self, question: str) -> str:
        """The row of a question, with any character in the place of each one to fill in.

        Raises UserError for what cannot be a question.
        """
        ...

    def read_row(self, row: str) -> tuple[str, str]:
        """The question and the answer of a row, which may be any text."""
        ...

    def display(self, text: str) -> str:
        """Characters of a row as people read them, one for one."""
        ...

    def is_given(self, row: str) -> list[bool]:
        """For each character of a row whether the question shows it."""
        ...

    def check(self, question: str, answer: str) -> bool:
        """Whether an answer, which may be any text, is correct."""
        ...


class AnswerAfterQuestion(ABC):
    """A row is a question, `=` and its answer."""

    box: ClassVar[int] = 0

    def row(self, question: str, answer: str) -> str:
        """The text of a question with its answer."""
        return f"{question}={answer}"

    def blank_row(self, question: str) -> str:
        """The question, and what it shows of its answer. A closing `=` may stand or not."""
        question = question.removesuffix("=")
        return self.row(question, self.partial_answer(question))

    def read_row(self, row: str) -> tuple[str, str]:
        """The question and the answer of a row."""
        question, _, answer = row.partition("=")
        return question, answer

    def display(self, text: str) -> str:
        """The text."""
        return text

    def is_given(self, row: str) -> list[bool]:
        """True for the question, and for what it shows of the answer."""
        question, answer = self.read_row(row)
        shown = [mark != "." for mark in self.partial_answer(question)[: len(answer)]]
        return [True] * (len(row) - len(answer)) + shown

    @abstractmethod
    def partial_answer(self, question: str) -> str:
        """The characters of the answer that the question shows, `.` for the others. As long as the answer."""


class Copy(AnswerAfterQuestion):
    """The answer is the question: 8, 16 or 32 of ten letters."""

    levels: ClassVar[Mapping[str, Any]] = {"easy": 8, "medium": 16, "hard": 32}

    def width(self, level: str) -> int:
        return 2 * self.levels[level] + 1

    def sample(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Letters drawn independently."""
        questions = ["".join(letters) for letters in rng.choice(_LETTERS, (count, self.levels[level]))]
        return [(question, self.answer(question)) for question in questions]

    def answer(self, question: str) -> str:
        """The only correct answer."""
        return question

    def partial_answer(self, question: str) -> str:
        return "." * len(question)

    def check(self, question: str, answer: str) -> bool:
        return answer == self.answer(question)


class Sort(Copy):
    """The answer is the question's letters in alphabetical order."""

    def answer(self, question: str) -> str:
        """The only correct answer."""
        return "".join(sorted(question))


class Brackets(AnswerAfterQuestion):
    """8, 16 or 32 brackets of three kinds with blanks; an answer fills the blanks so that all brackets match.

    There may be several correct answers. Balanced strings are uniform apart from the kinds of brackets. Each bracket is
    blank with probability 1/2, at least one per question.
    """

    levels: ClassVar[Mapping[str, Any]] = {"easy": 8, "medium": 16, "hard": 32}

    def width(self, level: str) -> int:
        return 2 * self.levels[level] + 1

    def sample(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions, each with the answer from which it was made."""
        uniforms = rng.random((count, 3, self.levels[level]))
        return [self._question(*row) for row in uniforms.tolist()]

    def _question(self, steps: list[float], kinds: list[float], blanks: list[float]) -> tuple[str, str]:
        answer, expected = "", ""  # expected: closing brackets, the next one last
        for number, (step, kind) in enumerate(zip(steps, kinds, strict=True)):
            remaining, depth = len(steps) - number, len(expected)
            # The fraction of balanced continuations that open a bracket (Arnold & Sleep 1980).
            if step < (remaining - depth) * (depth + 2) / (2 * remaining * (depth + 1)):
                answer += "([{"[int(kind * 3)]
                expected += _CLOSING[answer[-1]]
            else:
                answer, expected = answer + expected[-1], expected[:-1]
        question = "".join("." if blank < 0.5 else mark for blank, mark in zip(blanks, answer, strict=True))
        return question if "." in question else "." + question[1:], answer

    def partial_answer(self, question: str) -> str:
        return question

    def check(self, question: str, answer: str) -> bool:
        """Whether all brackets match and those of the question are unchanged."""
        if len(answer) != len(question) or any(a not in (".", b) for a, b in zip(question, answer, strict=True)):
            return False
        expected = ""
        for mark in answer:
            if mark in _CLOSING:
                expected += _CLOSING[mark]
            elif not expected or mark != expected[-1]:
                return False
            else:
                expected = expected[:-1]
        return not expected


class Addition(AnswerAfterQuestion):
    """The sum of two numbers of 3, 6 or 12 digits, always with leading zeros: 123+045=0168."""

    levels: ClassVar[Mapping[str, Any]] = {"easy": 3, "medium": 6, "hard": 12}

    def width(self, level: str) -> int:
        return 3 * self.levels[level] + 3

    def sample(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Uniform numbers."""
        digits = self.levels[level]
        pairs = rng.integers(0, 10**digits, (count, 2)).tolist()
        return [(f"{a:0{digits}}+{b:0{digits}}", f"{a + b:0{digits + 1}}") for a, b in pairs]

    def partial_answer(self, question: str) -> str:
        return "." * (len(question) // 2 + 1)  # one digit more than the numbers

    def check(self, question: str, answer: str) -> bool:
        """Whether it is the sum, with the right number of digits."""
        a, b = question.split("+")
        return answer == f"{int(a) + int(b):0{len(a) + 1}}"


TASKS: dict[str, Task] = {
    "sudoku": Sudoku(),
    "copy": Copy(),
    "sort": Sort(),
    "brackets": Brackets(),
    "addition": Addition(),
}


@dataclass(frozen=True)
class TaskData:
    """`size` rows of a task, determined by `seed`. No question occurs twice, so no two parts share one."""

    name: str
    task: Task
    level: str
    size: int
    seed: int

    def source(self) -> Documents:
        """The rows as text, a thousand per document. Documents of sudoku share no grid."""
        documents = cache(lambda: list(to_documents(self.rows())))  # read more than once
        identity = [self.name, VERSION, self.level, self.size, self.seed]
        name = f"{self.name}:{self.level}:{self.size}:{self.seed}"
        return Documents(name, lambda: iter(documents()), identity)

    def rows(self) -> Iterator[str]:
        """The rows; a smaller size gives the first of them. Raises UserError if the questions run out."""
        questions: set[str] = set()
        block, level_number = 0, [*self.task.levels].index(self.level)
        while len(questions) < self.size:
            before = len(questions)
            rng = np.random.default_rng([self.seed, level_number, block])
            for question, answer in self.task.sample(self.level, DOCUMENT, rng):
                if question not in questions and len(questions) < self.size:
                    questions.add(question)
                    yield self.task.row(question, answer)
            block += 1
            if (len(questions) - before) * 10 < min(DOCUMENT, self.size - before):
                raise UserError(f"{self.name}:{self.level} has too few different questions for {self.size} rows.")

    def text_settings(self) -> dict[str, Any]:
        """The fields of TextConfig that suit these rows."""
        return {
            "layout": "lines",
            "length": self.task.width(self.level) + 1,  # with the end
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

    def condition_mask(self, row: str) -> Bool[np.ndarray, " n"]:
        """True at the characters of a row that the question shows."""
        return np.array(self.task.is_given(row))

    def template(self, question: str) -> str:
        """The template of a question, whose gaps are what is to be filled in.

        Raises UserError for a question of another width, or one that cannot be answered.
        """
        row, width = self.task.blank_row(question), self.task.width(self.level)
        if len(row) != width:
            raise UserError(
                f"The question {question!r} gives a row of {len(row)} characters; those of {self.name}:{self.level} "
                f"have {width}."
            )
        return self.row_template(row)

    def row_template(self, row: str) -> str:
        """The template of a row's question."""
        groups = groupby(zip(row, self.task.is_given(row), strict=True), key=lambda pair: pair[1])
        pieces = (("".join(character for character, _ in pairs), given) for given, pairs in groups)
        return "".join(text if given else f"[MASK:{len(text)}]" for text, given in pieces)

    def is_correct(self, row: str) -> bool:
        """Whether a row is a question with a correct answer."""
        return self.task.check(*self.task.read_row(row))


def parse_task(data: str) -> TaskData | None:
    """The rows that `data` names: TASK, TASK:LEVEL, TASK:LEVEL:SIZE or TASK:LEVEL:SIZE:SEED; None if it names no task.

    Raises UserError for an unknown level and for an invalid size or seed.
    """
    name, *parts = data.split(":")
    if name not in TASKS:
        return None
    levels = [*TASKS[name].levels]
    level, *rest = parts or levels[:1]
    numbers = parse_size_and_seed(rest)
    if level not in levels or numbers is None:
        raise UserError(
            f"{data} is not valid. Write {name}:LEVEL, {name}:LEVEL:SIZE or {name}:LEVEL:SIZE:SEED; "
            f"LEVEL can be {', '.join(levels)}."
        )
    return TaskData(name, TASKS[name], level, *numbers)
