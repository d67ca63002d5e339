"""Score entropy: the loss of networks that learn ratios of probabilities, and the bound it is (SEDD)."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.densities import low_discrepancy
from ..diffusion.model import DiffusionModel
from ..diffusion.uniform import UniformProcess
from .base import Loss, add_noise, per_token, sample_times
from .discrete import prior_kl


def _entropy(model: DiffusionModel, batch: Batch, t: Float[Tensor, " b"], rng: Rng) -> Float[Tensor, " b"]:
    """The score entropy of one draw of x_t, nats per unit of t, summed over each row."""
    xt = add_noise(model, batch.tokens, t, batch, rng=rng)
    each = t[:, None].expand(xt.shape)
    where = batch.target_mask & model.process.is_noisy(xt)
    return model.denoiser(xt, t, batch=batch).score_entropy(model.process.graph, batch.tokens, where, xt, each).sum(-1)


class ScoreEntropy(nn.Module):
    """E_t sum over positions and y != x_t of Q(x_t, y) [s_y - r_y log s_y + r_y (log r_y - 1)] (SEDD, eq. 10).

    s are the model's ratios and r those of the clean text. Its weight grows like 1 / t; `max_weight` cuts it in
    training as in the masked bound, and the part `bound` is reported uncut.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __init__(self, max_weight: float | None = 3.0) -> None:
        super().__init__()
        self.max_weight = max_weight

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        t = sample_times(model, batch, rng=rng)
        importance = torch.exp(-model.time_density.log_prob(t))
        bound = per_token(_entropy(model, batch, t, rng.fork("noise")) * importance, batch)
        weight = model.process.schedule.loss_weight(t) * importance
        kept = 1.0 if self.max_weight is None else (self.max_weight / weight).clamp(max=1.0)
        return Loss((bound * kept).mean(), {"bound": bound.mean().detach()})


class ScoreEntropyLikelihood(nn.Module):
    """An upper bound on -log p(x), nats per row: the integral of the score entropy over t, and the cost of the prior.

    A reconstruction term is not needed: every schedule starts at alpha(0) = 1. t is the square of a uniform number, so
    that the weight 1 / t does not make the variance grow without limit.
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = ScoreEntropy.processes

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; t is stratified over the rows."""
        u = low_discrepancy(rng.fork("t"), batch.global_batch_size or len(batch.tokens)).clamp(min=2.0**-12)
        nats = _entropy(model, batch, u.square(), rng.fork("noise")) * 2.0 * u
        return nats + prior_kl(model, batch, rng)
