"""How many questions of a task a run answers right."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer

from ..core.batch import Batch
from ..core.errors import UserError
from ..data.builtin.tasks import TaskData, parse_task
from ..inference.api import TextDiffusion
from ..parts import SamplerPart
from .heldout import held_out


@dataclass(frozen=True)
class Solved:
    """The share of rows that are right as a whole, its standard error, their number, and the rows themselves."""

    share: float
    error: float
    rows: tuple[str, ...]


def template(task: TaskData, row: str) -> str:
    """A row with a gap for whatever is not given, as `TextDiffusion.infill` reads it."""
    pieces = groupby(zip(row, task.condition_mask(row), strict=True), key=lambda pair: pair[1])
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
    task = parse_task(data or model.config.text.data)
    if task is None:
        raise UserError(f"{data or model.config.text.data} is no task with answers that can be checked.")
    rows = [model.tokenizer.decode(ids) for ids in text.windows(range(len(text))).tokens.numpy()]
    asked = [template(task, row) for row in rows]
    answered = model.infill(asked, steps=steps, seed=seed, temperature=temperature, sampler=sampler)
    share = sum(map(task.is_correct, answered)) / len(answered)
    return Solved(share, (share * (1 - share) / len(answered)) ** 0.5, tuple(answered))


Ids = Integer[np.ndarray, "b n"]


@dataclass(frozen=True)
class Brier:
    """`scores[n - 1]` for the next n tokens, in [-1, 1]; `mean` is their geometric mean, 0 if one is not positive."""

    scores: tuple[float, ...]
    mean: float
    prefixes: int


def brier(truth: Ids, first: Ids, second: Ids) -> Brier:
    """Scores two independent continuations of each prefix: 1[x1 = y] + 1[x2 = y] - 1[x1 = x2] over the next n tokens.

    (BrierLM, Shao et al. 2025.) Its expectation is 2 p(y) - sum_x p(x)^2, which is largest on average where p is the
    law of the truth: neither repetition nor low temperature can raise it beyond that.
    """
    same = [np.logical_and.accumulate(a == b, axis=1) for a, b in ((first, truth), (second, truth), (first, second))]
    scores = (same[0].astype(float) + same[1] - same[2]).mean(0)
    mean = float(np.exp(np.log(scores).mean())) if (scores > 0).all() else 0.0
    return Brier(tuple(scores.tolist()), mean, len(truth))


def continuation_brier(
    model: TextDiffusion, batch: Batch, prefix: int, *, longest: int = 4, steps: int | None = None, seed: int = 0
) -> Brier:
    """`brier` of the `longest` tokens after the first `prefix` of each row of real text, each continued twice.

    Rows that are too short are left out. Scores of runs with unlike tokens do not compare. Raises UserError where no
    row is long enough.
    """
    stop = prefix + longest
    if batch.tokens.shape[1] < stop or prefix < 1:
        raise UserError(f"A prefix of {prefix} and {longest} tokens do not fit in windows of {batch.tokens.shape[1]}.")
    kept = batch.target_mask[:, :stop].all(1).nonzero()[:, 0]
    if not len(kept):
        raise UserError(f"No text has {stop} tokens to be continued after {prefix}.")
    ids = batch.tokens[kept].repeat_interleave(2, 0)
    given = (torch.arange(ids.shape[1]) < prefix).expand_as(ids)
    twice = Batch(ids, condition_mask=given, row_ids=torch.arange(len(ids)))
    made = []
    for part in model.chunks(twice):
        *_, last = model.stream(steps=steps, seed=seed, batch=part)
        made.append(last.tokens[:, prefix:stop].cpu().numpy())
    drawn = np.concatenate(made)
    return brier(batch.tokens[kept, prefix:stop].numpy(), drawn[::2], drawn[1::2])
