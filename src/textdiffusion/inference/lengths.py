"""Lengths of gaps, proposed by the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..data import templates
from ..data.conditions import encode_source
from ..diffusion.model import DiffusionModel
from ..scoring.likelihood import PILOT_ROWS, Aimable, drawn, eval_mode, spread
from .options import SamplingOptions, replaces_given

if TYPE_CHECKING:
    from .api import TextDiffusion

LAYOUTS = 64  # combinations of lengths that are compared; where there are more, so many are drawn at random
DRAWN = 4096  # rows that are drawn to compare them


def propose_lengths(
    run: TextDiffusion, template: str, num: int, seed: int, source: str | None = None, label: str | None = None
) -> list[str]:
    """`num` times `template` with lengths in its open gaps, drawn from the law that the run gives them.

    The law of a layout is in proportion to the probability of the given text, end and padding where it puts them,
    p(given) = p(text) / p(gaps | given) for whatever text fills the gaps. Both bounds are measured on one filling of
    each layout, under the same draws. Raises UserError for runs that cannot tell: those without modelled padding, those
    that write from left to right, and those trained without conditioning masks unless masks are their noise.
    """
    config, gaps = run.config.text, sum(piece == templates.OPEN for piece in templates.parse(template)[:-1])
    if not (config.model_padding and run.model.process.bidirectional) or replaces_given(run.model):
        raise UserError(
            "This run cannot propose the length of a gap before given text; say how many tokens: [MASK:5]. It takes "
            "training with text.model_padding=true and, unless tokens become masks, text.mask=mixed, and a model that "
            "does not write from left to right."
        )
    shortest = templates.with_lengths(template, [1] * gaps)
    ends = templates.parse(template)[-1] != templates.OPEN
    first = len(encode_source(source, config, run.tokenizer))
    spare = config.length - first - len(templates.encode(shortest, run.tokenizer)[0]) - ends
    if spare < 0:
        raise UserError(f"{template!r} leaves no room for its gaps in the run's {config.length} tokens.")
    rng = Rng.of(seed, torch.arange(num)).fork("lengths")
    layouts = [templates.with_lengths(template, counts) for counts in _counts(gaps, spare, seed)]
    batch = run.infill_batch(layouts, source=source, label=label)
    batch = replace(batch, row_ids=torch.arange(len(layouts))).to(run.device)
    *_, last = SamplingOptions(seed=seed).resolve(run, batch).run(batch)
    nats = given_nats(run.model, run.likelihood, replace(batch, tokens=last.tokens), seed, first)
    return [layouts[i] for i in rng.categorical((-nats).softmax(0).expand(num, -1))]


def given_nats(
    model: DiffusionModel, likelihood: Any, batch: Batch, seed: int = 0, first: int = 0
) -> Float[Tensor, " b"]:
    """-log p(the given tokens where they are | the `first` ones), in nats of each row, whose gaps must be filled."""

    def value(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        begun = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand(batch.tokens.shape) < first
        whole = replace(batch, condition_mask=begun if first else None)
        return likelihood(model, whole, rng=rng) - likelihood(model, batch, rng=rng)

    rows, count = Rows(batch), len(batch.tokens)
    with torch.no_grad(), eval_mode(model):
        if isinstance(likelihood, Aimable):
            pilot = drawn(likelihood.pilot, model, rows, spread(count, PILOT_ROWS), seed, "pilot", 0, 64)
            likelihood = likelihood.importance_sampled(pilot)
        copies = -(-DRAWN // count)
        return (
            drawn(value, model, rows, np.tile(np.arange(count), copies), seed, "lengths", 0, 64)
            .view(copies, -1)
            .mean(0)
        )


@dataclass(frozen=True)
class Rows:
    """The rows of a batch as evaluation windows."""

    batch: Batch

    def __len__(self) -> int:
        return len(self.batch.tokens)

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The rows of these numbers."""
        return self.batch.select(torch.as_tensor(np.asarray(rows), device=self.batch.tokens.device))


def _counts(gaps: int, spare: int, seed: int) -> list[tuple[int, ...]]:
    """Ways to give each gap a token, and gaps or nothing each of the `spare` ones: all of them, or some at random."""
    places = spare + gaps
    if math.comb(places, gaps) <= LAYOUTS:
        ends = list(combinations(range(places), gaps))
    else:
        shuffled = Rng.of(seed, LAYOUTS).fork("layouts").uniform(places).argsort(-1)
        ends = sorted({tuple(sorted(row)) for row in shuffled[:, :gaps].tolist()})
    return [tuple(b - a for a, b in pairwise((-1, *cuts))) for cuts in ends]
