"""Brier n-gram score: how well continuations of real prefixes are distributed, without a likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer

from ..api import TextDiffusion
from ..batch import Batch
from ..errors import UserError

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
    if batch.ids.shape[1] < stop or prefix < 1:
        raise UserError(f"A prefix of {prefix} and {longest} tokens do not fit in windows of {batch.ids.shape[1]}.")
    kept = batch.noised[:, :stop].all(1).nonzero()[:, 0]
    if not len(kept):
        raise UserError(f"No text has {stop} tokens to be continued after {prefix}.")
    ids = batch.ids[kept].repeat_interleave(2, 0)
    given = (torch.arange(ids.shape[1]) < prefix).expand_as(ids)
    twice = Batch(ids, given=given, rows=torch.arange(len(ids)))
    made = []
    for part in model.parts(twice):
        *_, last = model.stream(steps=steps, seed=seed, batch=part)
        made.append(last.ids[:, prefix:stop].cpu().numpy())
    drawn = np.concatenate(made)
    return brier(batch.ids[kept, prefix:stop].numpy(), drawn[::2], drawn[1::2])
