"""Lengths of gaps, proposed by the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng, check_seed
from ..core.types import PerRow
from ..data import templates
from ..data.conditions import encode_source
from ..diffusion.model import DiffusionModel
from ..scoring.likelihood import PILOT_ROWS, SupportsImportanceSampling, eval_mode, evaluate_rows, spaced_rows
from .options import SamplingOptions, replaces_given
from .run import Run

MAX_LAYOUTS = 64  # combinations of lengths to compare; where there are more, a random subset of them
NUM_DRAWS = 4096  # rows of random draws to compare them with


def propose_lengths(
    run: Run, template: str, num: int, seed: int, source: str | None = None, label: str | int | None = None
) -> list[str]:
    """`num` times `template` with lengths in its open gaps, sampled from the run's distribution of them.

    The probability of a layout is proportional to that of the given text, end and padding at the positions where the
    layout puts them: p(given) = p(text) / p(gaps | given) for any text in the gaps. Both bounds are measured on one
    filling of each layout, with the same random draws. Raises UserError for runs that do not know lengths: those
    without modelled padding, those that write from left to right, and those trained without conditioning masks, except
    where masks are the noise.
    """
    text, num_gaps = run.config.text, sum(piece == templates.OPEN for piece in templates.parse(template)[:-1])
    if not (text.model_padding and run.model.process.bidirectional) or replaces_given(run.model):
        raise UserError(
            "This run never learned where texts end, so [MASK] before given text needs a length: [MASK:5]. Runs "
            "trained with --layout lines can choose it, unless they write from left to right or have vectors and "
            "were trained without text.mask=mixed."
        )
    shortest = templates.with_lengths(template, [1] * num_gaps)
    ends = templates.parse(template)[-1] != templates.OPEN
    source_length = len(encode_source(source, text, run.tokenizer))
    row = templates.encode(shortest, run.tokenizer, normaliser=text.normaliser)
    spare = text.length - source_length - len(row.tokens) - ends
    if spare < 0:
        raise UserError(f"{template!r} leaves no room for its gaps in the run's {text.length} tokens.")
    rng = Rng.of(check_seed(seed), torch.arange(num)).fork("lengths")
    layouts = [templates.with_lengths(template, counts) for counts in _counts(num_gaps, spare, seed)]
    batch = run.template_batch(layouts, source=source, label=label)
    batch = replace(batch, row_ids=torch.arange(len(layouts))).to(run.device)
    *_, last = SamplingOptions(seed=seed).resolve(run, batch).run(batch)
    nats = given_nats(run.model, run.bound, replace(batch, tokens=last.tokens), seed, source_length)
    return [layouts[i] for i in rng.categorical((-nats).softmax(0).expand(num, -1))]


def given_nats(model: DiffusionModel, likelihood: Any, batch: Batch, seed: int = 0, source_length: int = 0) -> PerRow:
    """-log p(given tokens at their positions | the first `source_length` tokens), in nats; the gaps must be filled."""

    def difference(model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand(batch.tokens.shape)
        source_only = replace(batch, condition_mask=positions < source_length if source_length else None)
        return likelihood(model, source_only, rng=rng) - likelihood(model, batch, rng=rng)

    rows, count = Rows(batch), len(batch.tokens)
    with torch.no_grad(), eval_mode(model):
        if isinstance(likelihood, SupportsImportanceSampling):
            pilot = evaluate_rows(likelihood.pilot, model, rows, spaced_rows(count, PILOT_ROWS), seed, "pilot", 0, 64)
            likelihood = likelihood.importance_sampled(pilot)
        copies = -(-NUM_DRAWS // count)
        repeated = np.tile(np.arange(count), copies)
        return evaluate_rows(difference, model, rows, repeated, seed, "lengths", 0, 64).view(copies, -1).mean(0)


@dataclass(frozen=True)
class Rows:
    """The rows of a batch as evaluation windows."""

    batch: Batch

    def __len__(self) -> int:
        return len(self.batch.tokens)

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The rows of these numbers."""
        return self.batch.select(torch.as_tensor(np.asarray(rows), device=self.batch.tokens.device))


def _counts(num_gaps: int, spare: int, seed: int) -> list[tuple[int, ...]]:
    """Lengths of the gaps, at least 1 each and at most `spare` more in all: every combination, or a random subset."""
    num_slots = spare + num_gaps
    if math.comb(num_slots, num_gaps) <= MAX_LAYOUTS:
        ends = list(combinations(range(num_slots), num_gaps))
    else:
        shuffled = Rng.of(seed, MAX_LAYOUTS).fork("layouts").uniform(num_slots).argsort(-1)
        ends = sorted({tuple(sorted(row)) for row in shuffled[:, :num_gaps].tolist()})
    return [tuple(b - a for a, b in pairwise((-1, *cuts))) for cuts in ends]
