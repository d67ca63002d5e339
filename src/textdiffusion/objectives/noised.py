"""Noised states and what a model makes of them: what every objective of a Gaussian process starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..batch import Batch
from ..model import Model
from ..prediction import Prediction
from ..randomness import Rng
from . import corrupted, drawn_times


@dataclass(frozen=True)
class Noised:
    """Clean states, the noise level of each row that has one, noised states, and the model's prediction from them."""

    x0: Float[Tensor, "b l d"]
    t: Float[Tensor, " b"]
    xt: Float[Tensor, "b l d"]
    prediction: Prediction


def noised(
    model: Model,
    batch: Batch,
    *,
    rng: Rng,
    t: Float[Tensor, " b"] | None = None,
    uneven: Bool[Tensor, " b"] | None = None,
) -> Noised:
    """Every row at `t`, by default a draw from the model's density; given positions stay clean.

    The rows of `uneven` (None: no row) have a draw for each position instead. Where the process is trained on a grid of
    times, draws are moved to it. Where the denoiser takes self-conditioning, half of the rows see its own first
    estimate.
    """
    t = at = seen_times(model, batch, rng=rng) if t is None else t
    if uneven is not None:
        by_position = model.density.quantile(rng.fork("t by position").uniform(batch.ids.shape[1]))
        at = torch.where(uneven[:, None], model.process.seen(by_position), t[:, None])
    x0 = model.codec.encode(batch.ids)
    xt = corrupted(model, x0, at, batch, rng=rng.fork("noise"))
    estimate = None
    if model.denoiser.self_conditioning:
        estimate = self_condition(model, xt.detach(), at, batch, alternate_coin(rng.fork("self-conditioning")))
    return Noised(x0, t, xt, model.denoiser(xt, at, batch=batch, self_cond=estimate))


def seen_times(model: Model, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
    """One t per row from the model's density, moved to the grid of the process where it has one."""
    return model.process.seen(drawn_times(model, batch, rng=rng))


def predicted(model: Model, xt: Tensor, t: Float[Tensor, "b *l"], batch: Batch) -> Prediction:
    """What the model makes of x_t, by a second pass where the denoiser takes its own first estimate, as in sampling."""
    prediction = model.denoiser(xt, t, batch=batch)
    if model.denoiser.self_conditioning:
        prediction = model.denoiser(xt, t, batch=batch, self_cond=prediction.mean)
    return prediction


def self_condition(
    model: Model, xt: Float[Tensor, "b l d"], t: Float[Tensor, "b *l"], batch: Batch, coin: Bool[Tensor, " b"]
) -> Float[Tensor, "b l d"]:
    """The model's own first estimate of the clean state for the rows `coin` chooses, zeros elsewhere; no gradient."""
    estimate = torch.zeros_like(xt)
    chosen = coin.nonzero()[:, 0]
    with torch.no_grad():
        estimate[chosen] = model.denoiser(xt[chosen], t[chosen], batch=batch.select(chosen)).mean
    return estimate


def alternate_coin(rng: Rng, every: int = 2) -> Bool[Tensor, " b"]:
    """Heads for every second (or `every`-th) row of the global batch, beginning anywhere: the same share of any batch,
    and of the draws of any row."""
    return (rng.rows + (every * (1.0 - rng.shared_uniform())).long()) % every == 0
