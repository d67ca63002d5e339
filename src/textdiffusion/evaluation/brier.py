"""Brier scores of continuations (BrierLM, Shao et al. 2025): a proper score for runs without exact likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer

from ..core.batch import Batch
from ..core.errors import UserError
from ..inference.api import TextDiffusion

Continuations = Integer[np.ndarray, "b n"]


@dataclass(frozen=True)
class BrierScores:
    """`scores[n - 1]`, in [-1, 1], for the next n tokens; `mean` is their geometric mean, 0 if one is not positive."""

    scores: tuple[float, ...]
    mean: float
    prefixes: int


def brier_scores(truth: Continuations, first: Continuations, second: Continuations) -> BrierScores:
    """Scores two independent continuations of each prefix: 1[x1 = y] + 1[x2 = y] - 1[x1 = x2] over the next n tokens.

    The expectation is 2 p(y) - sum_x p(x)^2, which is largest on average where p is the distribution of the truth:
    neither repetition nor a low temperature can raise it further.
    """
    pairs = (first, truth), (second, truth), (first, second)
    equal = [np.logical_and.accumulate(a == b, axis=1) for a, b in pairs]
    scores = (equal[0].astype(float) + equal[1] - equal[2]).mean(0)
    mean = float(np.exp(np.log(scores).mean())) if (scores > 0).all() else 0.0
    return BrierScores(tuple(scores.tolist()), mean, len(truth))


def continuation_brier(
    model: TextDiffusion, batch: Batch, prefix: int, *, longest: int = 4, steps: int | None = None, seed: int = 0
) -> BrierScores:
    """`brier_scores` of the `longest` tokens after the first `prefix` of each row of real text, each continued twice.

    Rows that are too short are left out. Scores of runs with different tokenizers do not compare. Raises UserError
    where no row is long enough.
    """
    stop = prefix + longest
    if batch.tokens.shape[1] < stop or prefix < 1:
        raise UserError(f"A prefix of {prefix} and {longest} tokens do not fit in windows of {batch.tokens.shape[1]}.")
    rows = batch.target_mask[:, :stop].all(1).nonzero()[:, 0]
    if not len(rows):
        raise UserError(f"No text has {stop} tokens: {prefix} for the prefix and {longest} to continue it.")
    tokens = batch.tokens[rows].repeat_interleave(2, 0)
    condition_mask = (torch.arange(tokens.shape[1]) < prefix).expand_as(tokens)
    request = Batch(tokens, condition_mask=condition_mask, row_ids=torch.arange(len(tokens)))
    continuations = []
    for chunk in model.chunks(request):
        *_, step = model.stream(steps=steps, seed=seed, batch=chunk)
        continuations.append(step.tokens[:, prefix:stop].cpu().numpy())
    sampled = np.concatenate(continuations)
    return brier_scores(batch.tokens[rows, prefix:stop].numpy(), sampled[::2], sampled[1::2])
