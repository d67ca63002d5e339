"""Which positions of training rows are clean conditioning: prefixes, spans, random positions and mixtures of these."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.types import Mask, RowIndex, Tokens

SPANS = 5  # the most noised spans in a row (SED, Strudel et al. 2022, section 3)

# Each row picks one of these kinds with this probability.
MIXTURES: dict[str, dict[str, float]] = {
    "prefixes": {"prefix": 0.5, "random": 0.5},  # Dieleman et al. 2022, section 4.3
    "spans": {"span": 0.5, "shuffled_span": 0.5},
    "given_spans": {"given_span": 0.5, "random": 0.5},  # simple-diffusion-lm
    "mixed": {"none": 0.25, "prefix": 0.25, "random": 0.25, "span": 0.25},
}


def scatters_conditions(kind: str) -> bool:
    """Whether a mask of this kind gives some rows conditioning tokens scattered over the whole text."""
    return not {"random", "shuffled_span"}.isdisjoint(MIXTURES.get(kind, {kind}))


def sample_condition_mask(kind: str, valid_mask: Mask, rng: Rng, segment_ids: Tokens | None = None) -> Mask:
    """True at the conditioning positions; a row's mask depends on its own random numbers alone.

    `none`: nowhere. `prefix`: the first positions, their number uniform. `random`: as many, anywhere. `given_span`: as
    many, contiguous. `span`: everything except 1 to `SPANS` spans with random ends. `shuffled_span`: as many as `span`,
    anywhere. Or one of `MIXTURES`. Only valid positions condition, and at least one valid position of a row does not.
    In packed rows each segment is sampled like a row of its own. Raises UserError for an unknown kind.
    """
    if segment_ids is not None:
        return _per_segment(kind, valid_mask, rng, segment_ids)
    if kind in MIXTURES:
        return _mixture(MIXTURES[kind], valid_mask, rng)
    if kind not in MASKS:
        raise UserError(f"There is no conditioning mask {kind!r}; it can be {', '.join([*MASKS, *MIXTURES])}.")
    return MASKS[kind](valid_mask, rng)


def _per_segment(kind: str, valid_mask: Mask, rng: Rng, segment_ids: Tokens) -> Mask:
    segments = torch.arange(int(segment_ids.max()) + 1, device=valid_mask.device)
    segment_masks = valid_mask[:, None] & (segment_ids[:, None] == segments[:, None])  # [b, segments, l]
    row_ids = rng.row_ids[:, None] * valid_mask.shape[1] + segments
    condition_mask = sample_condition_mask(kind, segment_masks.flatten(0, 1), Rng(rng.key, row_ids.flatten()))
    return condition_mask.view_as(segment_masks).any(1)


def _mixture(probabilities: dict[str, float], valid_mask: Mask, rng: Rng) -> Mask:
    bounds = torch.tensor([*probabilities.values()], device=valid_mask.device).cumsum(0)[:-1]
    choice = torch.bucketize(rng.fork("kind").uniform(), bounds)
    condition_masks = torch.stack([MASKS[kind](valid_mask, rng.fork(kind)) for kind in probabilities])
    return condition_masks[choice, torch.arange(len(choice), device=choice.device)]


def _prefix(valid_mask: Mask, rng: Rng) -> Mask:
    return valid_mask & (valid_mask.cumsum(1) <= _uniform_count(valid_mask, rng)[:, None])


def _random(valid_mask: Mask, rng: Rng) -> Mask:
    return _random_subset(valid_mask, _uniform_count(valid_mask, rng), rng)


def _given_span(valid_mask: Mask, rng: Rng) -> Mask:
    count = _uniform_count(valid_mask, rng)
    first = (rng.fork("first").uniform() * (valid_mask.sum(1) - count + 1)).long()[:, None]
    rank = valid_mask.cumsum(1) - 1
    return valid_mask & (rank >= first) & (rank < first + count[:, None])


def _span(valid_mask: Mask, rng: Rng) -> Mask:
    """Spans begin and end at distinct random cuts, two per span, among the n + 1 boundaries of n valid positions."""
    count = valid_mask.sum(1)
    spans = torch.minimum(1 + (rng.fork("spans").uniform() * SPANS).long(), (count + 1) // 2)
    boundaries = valid_mask.shape[1] + 1
    allowed = torch.arange(boundaries, device=valid_mask.device) <= count[:, None]
    cuts = _lowest(rng.fork("cuts").uniform(boundaries), allowed, 2 * spans)
    rank = (valid_mask.cumsum(1) - 1).clamp(min=0)  # of a position among the valid ones
    noised = cuts.cumsum(1).gather(1, rank) % 2 == 1
    return valid_mask & ~noised


def _shuffled_span(valid_mask: Mask, rng: Rng) -> Mask:
    return _random_subset(valid_mask, _span(valid_mask, rng).sum(1), rng)


def _uniform_count(valid_mask: Mask, rng: Rng) -> RowIndex:
    """Uniform in 0..n-1 for n valid positions."""
    total = valid_mask.sum(1)
    return torch.minimum((rng.fork("count").uniform() * total).long(), (total - 1).clamp(min=0))


def _random_subset(valid_mask: Mask, count: RowIndex, rng: Rng) -> Mask:
    return _lowest(rng.fork("places").uniform(valid_mask.shape[1]), valid_mask, count)


def _lowest(scores: Float[Tensor, "b n"], allowed: Bool[Tensor, "b n"], count: RowIndex) -> Bool[Tensor, "b n"]:
    """True at the `count` allowed entries with the lowest scores (in [0, 1]) in each row."""
    order = scores.masked_fill(~allowed, 2.0).argsort(stable=True, dim=1)
    first = torch.arange(scores.shape[1], device=scores.device) < count[:, None]
    return torch.zeros_like(allowed).scatter(1, order, first)


MASKS: dict[str, Callable[[Mask, Rng], Mask]] = {
    "none": lambda valid_mask, rng: torch.zeros_like(valid_mask),
    "prefix": _prefix,
    "random": _random,
    "given_span": _given_span,
    "span": _span,
    "shuffled_span": _shuffled_span,
}
