"""The fraction of a task's questions that a run answers correctly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from ..data.builtin.tasks import parse_task
from ..inference.api import TextDiffusion
from ..samplers.base import Sampler
from .heldout import held_out


@dataclass(frozen=True)
class TaskResult:
    """The fraction of questions with a completely correct answer, its standard error, and all answered rows."""

    accuracy: float
    error: float
    answers: tuple[str, ...]


def solve_task(
    model: TextDiffusion,
    cache_dir: Path,
    data: str = "",
    count: int = 0,
    *,
    steps: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    sampler: str | Sampler | None = None,
) -> TaskResult:
    """Answers `count` questions (0: all) of a task by infilling: of `data`, or of the run's own test text.

    Everything that a question shows is given, also inside the answer (the givens of sudoku), for every family alike.
    The questions of a run's test text do not occur in its training text. Where several answers are right, each counts.
    Raises UserError where `data` is not a task.
    """
    text = held_out(model, cache_dir, data, count)
    task = parse_task(data or model.config.text.data)
    if task is None:
        raise UserError(f"{data or model.config.text.data} is not a task with answers that can be checked.")
    rows = [model.tokenizer.decode(ids) for ids in text.windows(range(len(text))).tokens.numpy()]
    questions = [task.row_template(row) for row in rows]
    answers = model.infill(questions, steps=steps, seed=seed, temperature=temperature, sampler=sampler)
    accuracy = sum(map(task.is_correct, answers)) / len(answers)
    return TaskResult(accuracy, (accuracy * (1 - accuracy) / len(answers)) ** 0.5, tuple(answers))
