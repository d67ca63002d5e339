"""One training draw of a process over vectors: times, noisy states, self-conditioning and the density's own loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.types import PerRow, Scalar, Times, Vectors
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from .base import add_noise, sample_times


def sample_grid_times(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Times:
    """`sample_times`, rounded to the process's grid of training times if it has one."""
    return model.process.snap_to_grid(sample_times(model, batch, rng=rng))


@dataclass(frozen=True)
class NoisedBatch:
    """Clean states, one time per row, noisy states, and the model's prediction from them."""

    x0: Vectors
    t: Times
    xt: Vectors
    prediction: Prediction


def noise_batch(
    model: DiffusionModel,
    batch: Batch,
    *,
    rng: Rng,
    t: Times | None = None,
    per_token_noise: Bool[Tensor, " b"] | None = None,
) -> NoisedBatch:
    """Adds noise at `t` (default: sampled from the time density) to the target positions, and predicts x0.

    The rows of `per_token_noise` (None: no row) have one time per position instead. If the process is trained on a grid
    of times, times are rounded to it. If the denoiser has self-conditioning, half of the rows see its own first
    estimate.
    """
    t = sample_grid_times(model, batch, rng=rng) if t is None else t
    times: Float[Tensor, "b *l"] = t
    if per_token_noise is not None:
        by_position = model.time_density.icdf(rng.fork("t by position").uniform(batch.tokens.shape[1]))
        times = torch.where(per_token_noise[:, None], model.process.snap_to_grid(by_position), t[:, None])
    x0 = model.codec.encode(batch.tokens)
    xt = add_noise(model, x0, times, batch, rng=rng.fork("noise"))
    estimate = None
    if model.denoiser.self_conditioning:
        estimate = self_condition(model, xt.detach(), times, batch, every_nth_row(rng.fork("self-conditioning")))
    return NoisedBatch(x0, t, xt, model.denoiser(xt, times, batch=batch, self_cond=estimate))


def predict_x0(model: DiffusionModel, xt: Tensor, t: Float[Tensor, "b *l"], batch: Batch) -> Prediction:
    """The model's prediction from x_t; with self-conditioning by two passes, as in sampling."""
    prediction = model.denoiser(xt, t, batch=batch)
    if model.denoiser.self_conditioning:
        prediction = model.denoiser(xt, t, batch=batch, self_cond=prediction.mean)
    return prediction


def self_condition(
    model: DiffusionModel, xt: Vectors, t: Float[Tensor, "b *l"], batch: Batch, where: Bool[Tensor, " b"]
) -> Vectors:
    """The model's first estimate of the clean state in the rows `where`, zeros elsewhere; no gradient."""
    estimate = torch.zeros_like(xt)
    selected = where.nonzero()[:, 0]
    with torch.no_grad():
        estimate[selected] = model.denoiser(xt[selected], t[selected], batch=batch.select(selected)).mean
    return estimate


def every_nth_row(rng: Rng, every: int = 2) -> Bool[Tensor, " b"]:
    """True for every `every`-th row of the global batch from a random first one on.

    So the fraction of True is the same in every batch, and over the steps for every row.
    """
    return (rng.row_ids + (every * (1.0 - rng.shared_uniform())).long()) % every == 0


def density_fit(model: DiffusionModel, t: Times, nats: PerRow, where: Bool[Tensor, " b"] | bool = True) -> Scalar:
    """The time density's own loss, averaged over rows; those outside `where` or with a non-finite loss count as 0."""
    with torch.no_grad():
        usable = model.time_density.fitting_loss(t, nats).isfinite() & where
        median = model.time_density.icdf(torch.full_like(t, 0.5))
    # Excluded rows are replaced before the fit too: their gradient would be 0 times infinity.
    row_loss = model.time_density.fitting_loss(torch.where(usable, t, median), torch.where(usable, nats, 0.0))
    return torch.where(usable, row_loss, 0.0).mean()
