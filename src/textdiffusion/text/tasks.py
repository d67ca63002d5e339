"""Tasks whose answers are checked exactly, as built-in data: a row is a question, `=` and its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from textdiffusion.errors import UserError
from textdiffusion.text.exercises import Addition, Brackets, Copy, Sort
from textdiffusion.text.sources import Documents
from textdiffusion.text.sudoku import Sudoku

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
