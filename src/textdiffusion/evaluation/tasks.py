"""How many questions of a task a run answers right."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..api import TextDiffusion
from ..errors import UserError
from ..parts import SamplerPart
from ..text.tasks import Exercise, exercise
from .heldout import held_out


@dataclass(frozen=True)
class Solved:
    """The share of rows that are right as a whole, its standard error, their number, and the rows themselves."""

    share: float
    error: float
    rows: tuple[str, ...]


def template(task: Exercise, row: str) -> str:
    """A row with a gap for whatever is not given, as `TextDiffusion.infill` reads it."""
    pieces = groupby(zip(row, task.given(row), strict=True), key=lambda pair: pair[1])
    texts = (("".join(mark for mark, _ in marks), given) for given, marks in pieces)
    return "".join(text if given else f"[MASK:{len(text)}]" for text, given in texts)


def solved(
    model: TextDiffusion,
    cache: Path,
    data: str = "",
    count: int = 0,
    *,
    steps: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    sampler: str | SamplerPart | None = None,
) -> Solved:
    """Asks a run `count` questions (0: all) of a task by infilling: of `data`, or of its own test part.

    All that the questions show is given, in the answers too (the givens of sudoku), to every family alike. No question
    of a run's test part was in its training part. Of several right answers any one counts. Raises UserError where
    `data` is no task.
    """
    text = held_out(model, cache, data, count)
    task = exercise(data or model.config.text.data)
    if task is None:
        raise UserError(f"{data or model.config.text.data} is no task with answers that can be checked.")
    rows = [model.tokenizer.decode(ids) for ids in text.windows(range(len(text))).ids.numpy()]
    asked = [template(task, row) for row in rows]
    answered = model.infill(asked, steps=steps, seed=seed, temperature=temperature, sampler=sampler)
    share = sum(map(task.solved, answered)) / len(answered)
    return Solved(share, (share * (1 - share) / len(answered)) ** 0.5, tuple(answered))
