"""Lengths of gaps, proposed by the model."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise

import torch

from ..config.compatibility import sampler_problem
from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng, check_seed
from ..core.types import PerRow
from ..data import templates
from ..data.conditions import encode_source
from ..diffusion.model import DiffusionModel
from ..samplers.masked_view import adapt_model
from ..samplers.order_likelihood import OrderLikelihood
from ..scoring.likelihood import eval_mode
from .run import Run

MAX_LAYOUTS = 128  # combinations of lengths to compare; where there are more, a random subset of them
IN_ORDER = OrderLikelihood(order="left")


def propose_lengths(
    run: Run, template: str, num: int, seed: int, source: str | None = None, label: str | int | None = None
) -> list[str]:
    """`num` times `template` with lengths in its open gaps, sampled from the run's distribution of them.

    The probability of a layout is proportional to that of the given text and the end at the positions where the layout
    puts them (`given_nats`). Raises UserError for runs that do not know lengths: those without modelled padding, those
    that write from left to right, those of uniform noise, and those of vectors that were trained without given tokens.
    """
    text, num_gaps = run.config.text, sum(piece == templates.OPEN for piece in templates.parse(template)[:-1])
    if not text.model_padding or sampler_problem(IN_ORDER, run.config, run.model.process):
        raise UserError(
            "This run cannot choose the length of a gap, so [MASK] before given text needs one: [MASK:5]. Runs of "
            "masks trained with --layout lines can, and runs of vectors if they were trained with text.mask=mixed too."
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
    batch = replace(batch, row_ids=torch.zeros(len(layouts), dtype=torch.long)).to(run.device)  # any noise is shared
    nats = given_nats(adapt_model(IN_ORDER, run.model, seed), batch, run.tokenizer.pad_id, source_length)
    return [layouts[i] for i in rng.categorical((-nats).softmax(0).expand(num, -1))]


def given_nats(model: DiffusionModel, batch: Batch, pad_id: int | None = None, source_length: int = 0) -> PerRow:
    """-log p(given tokens at their positions | the first `source_length` tokens), in nats, for a model of masks.

    The given tokens are revealed from left to right while the gaps stay masked, so nothing has to be known about what
    fills them: exact for an ideal denoiser. Padding follows from the end before it, so it is not measured.
    """
    assert batch.condition_mask is not None
    is_source = torch.zeros_like(batch.condition_mask)
    is_source[:, :source_length] = True
    hidden = ~batch.condition_mask if pad_id is None else ~batch.condition_mask | (batch.tokens == pad_id)
    with torch.no_grad(), eval_mode(model):
        unread = replace(batch, condition_mask=is_source if source_length else None)
        return IN_ORDER(model, unread, rng=Rng.of(0, len(batch.tokens)), hidden=hidden & ~is_source)


def _counts(num_gaps: int, spare: int, seed: int) -> list[tuple[int, ...]]:
    """Lengths of the gaps, at least 1 each and at most `spare` more in all: every combination, or a random subset."""
    num_slots = spare + num_gaps
    if math.comb(num_slots, num_gaps) <= MAX_LAYOUTS:
        ends = list(combinations(range(num_slots), num_gaps))
    else:
        shuffled = Rng.of(seed, MAX_LAYOUTS).fork("layouts").uniform(num_slots).argsort(-1)
        ends = sorted({tuple(sorted(row)) for row in shuffled[:, :num_gaps].tolist()})
    return [tuple(b - a for a, b in pairwise((-1, *cuts))) for cuts in ends]
