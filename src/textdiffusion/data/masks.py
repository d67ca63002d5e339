"""Which positions training gives as conditioning: prefixes, spans, random positions and mixtures of these."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng

SPANS = 5  # at most so many noised spans in a row (SED, Strudel et al. 2022, section 3)

# Each kind is chosen per row with this probability.
MIXTURES: dict[str, dict[str, float]] = {
    "prefixes": {"prefix": 0.5, "random": 0.5},  # Dieleman et al. 2022, section 4.3
    "spans": {"span": 0.5, "shuffled_span": 0.5},
    "given_spans": {"given_span": 0.5, "random": 0.5},  # simple-diffusion-lm
    "mixed": {"none": 0.25, "prefix": 0.25, "random": 0.25, "span": 0.25},
}


def gives_anywhere(kind: str) -> bool:
    """At least a part of the rows is given tokens at places scattered over all of the text."""
    return not {"random", "shuffled_span"}.isdisjoint(MIXTURES.get(kind, {kind}))


def given_mask(
    kind: str, real: Bool[Tensor, "b l"], rng: Rng, segments: Int[Tensor, "b l"] | None = None
) -> Bool[Tensor, "b l"]:
    """True at the positions that are given; a function of each row's own draws.

    `none`; `prefix`: the first positions, their number uniform; `random`: as many anywhere; `given_span`: as many in
    one piece; `span`: all but 1 to `SPANS` spans with random ends; `shuffled_span`: as many as `span` gives, anywhere;
    or a mixture of `MIXTURES`. Positions that are not `real` are never given, and at least one real position of a row
    is not. Each of the examples that `segments` tells apart is drawn as a row of its own. Raises UserError for an
    unknown kind.
    """
    if segments is not None:
        return _each(kind, real, rng, segments)
    if kind in MIXTURES:
        return _mixture(MIXTURES[kind], real, rng)
    if kind not in MASKS:
        raise UserError(f"There is no conditioning mask {kind!r}; it can be {', '.join([*MASKS, *MIXTURES])}.")
    return MASKS[kind](real, rng)


def _each(kind: str, real: Bool[Tensor, "b l"], rng: Rng, segments: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
    numbers = torch.arange(int(segments.max()) + 1, device=real.device)
    alone = real[:, None] & (segments[:, None] == numbers[:, None])
    rows = rng.row_ids[:, None] * real.shape[1] + numbers
    given = given_mask(kind, alone.flatten(0, 1), Rng(rng.key, rows.flatten()))
    return given.view_as(alone).any(1)


def _mixture(shares: dict[str, float], real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    bounds = torch.tensor(list(shares.values()), device=real.device).cumsum(0)[:-1]
    chosen = torch.bucketize(rng.fork("kind").uniform(), bounds)
    given = torch.zeros_like(real)
    for number, kind in enumerate(shares):
        given |= MASKS[kind](real, rng.fork(kind)) & (chosen == number)[:, None]
    return given


def _none(real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    return torch.zeros_like(real)


def _prefix(real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    return real & (real.cumsum(1) <= _count(real, rng)[:, None])


def _random(real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    return _anywhere(real, _count(real, rng), rng)


def _given_span(real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    count = _count(real, rng)
    first = (rng.fork("first").uniform() * (real.sum(1) - count + 1)).long()[:, None]
    rank = real.cumsum(1) - 1
    return real & (rank >= first) & (rank < first + count[:, None])


def _span(real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    """Twice as many cuts as spans, at different places 0..n of the n real positions, are where spans begin and end."""
    size = real.sum(1)
    spans = 1 + (rng.fork("spans").uniform() * SPANS).long()
    spans = torch.minimum(spans, (size + 1) // 2)
    places = real.shape[1] + 1
    inside = torch.arange(places, device=real.device) <= size[:, None]
    cuts = _lowest(rng.fork("cuts").uniform(places), inside, 2 * spans)
    rank = (real.cumsum(1) - 1).clamp(min=0)  # of a position among the real ones
    noised = cuts.cumsum(1).gather(1, rank) % 2 == 1
    return real & ~noised


def _shuffled_span(real: Bool[Tensor, "b l"], rng: Rng) -> Bool[Tensor, "b l"]:
    return _anywhere(real, _span(real, rng).sum(1), rng)


def _count(real: Bool[Tensor, "b l"], rng: Rng) -> Int[Tensor, " b"]:
    """Uniform in 0..n-1 for n real positions."""
    size = real.sum(1)
    return torch.minimum((rng.fork("count").uniform() * size).long(), (size - 1).clamp(min=0))


def _anywhere(real: Bool[Tensor, "b l"], count: Int[Tensor, " b"], rng: Rng) -> Bool[Tensor, "b l"]:
    return _lowest(rng.fork("places").uniform(real.shape[1]), real, count)


def _lowest(
    scores: Float[Tensor, "b n"], allowed: Bool[Tensor, "b n"], count: Int[Tensor, " b"]
) -> Bool[Tensor, "b n"]:
    """The `count` allowed places of the lowest scores in each row."""
    order = scores.masked_fill(~allowed, 2.0).argsort(stable=True, dim=1)
    chosen = torch.arange(scores.shape[1], device=scores.device) < count[:, None]
    return torch.zeros_like(allowed).scatter(1, order, chosen)


MASKS: dict[str, Callable[[Bool[Tensor, "b l"], Rng], Bool[Tensor, "b l"]]] = {
    "none": _none,
    "prefix": _prefix,
    "random": _random,
    "given_span": _given_span,
    "span": _span,
    "shuffled_span": _shuffled_span,
}
