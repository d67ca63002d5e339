"""Score entropy: the training loss of networks that learn ratios of probabilities, and the bound it is (SEDD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import PerRow, Times
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.uniform import UniformProcess
from .base import Likelihood, Loss, Objective, add_noise, per_token, sample_times, stratified_uniforms
from .discrete import prior_kl


@dataclass(frozen=True)
class ScoreEntropy(Objective):
    """E_t of sum over positions and y != x_t of Q(x_t, y) [s_y - r_y log s_y + r_y (log r_y - 1)] (SEDD, eq. 10).

    s are the model's ratios and r those of the clean text; nats per token. The weight grows like 1 / t; training clips
    it at `max_weight` (0: no clipping), as in `MaskedELBO`. The logged part `bound` is not clipped.
    """

    max_weight: float = 3.0

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __post_init__(self) -> None:
        check_bounds(self, max_weight=(0.0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        t = sample_times(model, batch, rng=rng)
        importance = torch.exp(-model.time_density.log_prob(t))
        bound = per_token(score_entropy(model, batch, t, rng.fork("noise")) * importance, batch)
        weight = model.process.schedule.loss_weight(t) * importance
        clipping = (self.max_weight / weight).clamp(max=1.0) if self.max_weight else 1.0
        return Loss((bound * clipping).mean(), {"bound": bound.mean().detach()})


@dataclass(frozen=True)
class ScoreEntropyLikelihood(Likelihood):
    """An upper bound on -log p(x), nats per row: the integral of the score entropy over t, plus the prior's KL.

    There is no reconstruction term, as every schedule starts at alpha(0) = 1. t is the square of a uniform number,
    which bounds the variance under the weight 1 / t.
    """

    processes: ClassVar[tuple[type, ...]] = ScoreEntropy.processes

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One unbiased estimate per row; t is stratified over the rows."""
        u = stratified_uniforms(batch, rng=rng.fork("t")).clamp(min=2.0**-12)
        nats = score_entropy(model, batch, u.square(), rng.fork("noise")) * 2.0 * u
        return nats + prior_kl(model, batch, rng)


def score_entropy(model: DiffusionModel, batch: Batch, t: Times, rng: Rng) -> PerRow:
    """The score entropy at one sample of x_t, nats per unit of t, summed over each row."""
    xt = add_noise(model, batch.tokens, t, batch, rng=rng)
    times = t[:, None].expand(xt.shape)
    where = batch.target_mask & model.process.is_noisy(xt)
    return model.denoiser(xt, t, batch=batch).score_entropy(model.process.graph, batch.tokens, where, xt, times).sum(-1)
