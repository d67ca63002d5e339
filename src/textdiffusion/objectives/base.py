"""Objectives: what training minimises, one file per loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.densities import low_discrepancy
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction


@dataclass(frozen=True)
class Loss:
    """What to minimise, and named parts to show (detached scalars, nats per token unless the name says otherwise)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """A training loss."""

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss: ...


def per_token(nats: Float[Tensor, " b"], batch: Batch) -> Float[Tensor, " b"]:
    """Nats per row to nats per token that could be noised."""
    return nats / batch.target_mask.sum(-1).clamp(min=1)


def density_fit(
    model: DiffusionModel, t: Float[Tensor, " b"], nats: Float[Tensor, " b"], where: Bool[Tensor, " b"] | bool = True
) -> Float[Tensor, ""]:
    """The mean of what the density is to learn from the rows `where`; 0 for rows whose fit is no number."""
    with torch.no_grad():
        usable = model.time_density.fitting_loss(t, nats).isfinite() & where
        middle = model.time_density.icdf(torch.full_like(t, 0.5))
    # Rows left out are replaced before the fit too: the gradient would be 0 times what is infinite in them.
    each = model.time_density.fitting_loss(torch.where(usable, t, middle), torch.where(usable, nats, 0.0))
    return torch.where(usable, each, 0.0).mean()


def sample_times(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
    """One t per row from the model's density, stratified over the global batch."""
    return model.time_density.icdf(low_discrepancy(rng.fork("t"), batch.global_batch_size or len(batch.tokens)))


def add_noise(model: DiffusionModel, x0: Tensor, t: Float[Tensor, "b *l"], batch: Batch, *, rng: Rng) -> Tensor:
    """A draw of x_t at the positions that may be noised; the others stay clean."""
    noised = batch.target_mask if x0.ndim == 2 else batch.target_mask[..., None]
    return torch.where(noised, model.process.add_noise(x0, t, rng=rng), x0)


@dataclass(frozen=True)
class NoisedBatch:
    """Clean states, the noise level of each row that has one, noised states, and the model's prediction from them."""

    x0: Float[Tensor, "b l d"]
    t: Float[Tensor, " b"]
    xt: Float[Tensor, "b l d"]
    prediction: Prediction


def noise_batch(
    model: DiffusionModel,
    batch: Batch,
    *,
    rng: Rng,
    t: Float[Tensor, " b"] | None = None,
    uneven: Bool[Tensor, " b"] | None = None,
) -> NoisedBatch:
    """Every row at `t`, by default a draw from the model's density; given positions stay clean.

    The rows of `uneven` (None: no row) have a draw for each position instead. Where the process is trained on a grid of
    times, draws are moved to it. Where the denoiser takes self-conditioning, half of the rows see its own first
    estimate.
    """
    t = at = sample_grid_times(model, batch, rng=rng) if t is None else t
    if uneven is not None:
        by_position = model.time_density.icdf(rng.fork("t by position").uniform(batch.tokens.shape[1]))
        at = torch.where(uneven[:, None], model.process.snap_to_grid(by_position), t[:, None])
    x0 = model.codec.encode(batch.tokens)
    xt = add_noise(model, x0, at, batch, rng=rng.fork("noise"))
    estimate = None
    if model.denoiser.self_conditioning:
        estimate = self_condition(model, xt.detach(), at, batch, alternate_coin(rng.fork("self-conditioning")))
    return NoisedBatch(x0, t, xt, model.denoiser(xt, at, batch=batch, self_cond=estimate))


def sample_grid_times(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
    """One t per row from the model's density, moved to the grid of the process where it has one."""
    return model.process.snap_to_grid(sample_times(model, batch, rng=rng))


def predict_x0(model: DiffusionModel, xt: Tensor, t: Float[Tensor, "b *l"], batch: Batch) -> Prediction:
    """What the model makes of x_t, by a second pass where the denoiser takes its own first estimate, as in sampling."""
    prediction = model.denoiser(xt, t, batch=batch)
    if model.denoiser.self_conditioning:
        prediction = model.denoiser(xt, t, batch=batch, self_cond=prediction.mean)
    return prediction


def self_condition(
    model: DiffusionModel, xt: Float[Tensor, "b l d"], t: Float[Tensor, "b *l"], batch: Batch, coin: Bool[Tensor, " b"]
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
    return (rng.row_ids + (every * (1.0 - rng.shared_uniform())).long()) % every == 0
