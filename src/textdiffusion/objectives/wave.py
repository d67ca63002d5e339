"""The bound of masks that come in a wave: a training loss and a likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Mask, PerPosition, PerRow
from ..diffusion.model import DiffusionModel
from ..diffusion.wave import WaveProcess
from .base import Likelihood, Loss, Objective, add_noise, per_token, sample_times


@dataclass(frozen=True)
class WaveELBO(Objective, name="wave_elbo"):
    """E_t[sum over masked i of w_i(t) / p(t) * -log p(x0_i | x_t)], w_i = -alpha_i' / (1 - alpha_i), nats per token.

    HDLM (arXiv:2504.06416). One t per row; masks right of the wave have no weight, so a row trains about `width`
    positions. `max_weight` clips the weight as in `MaskedELBO`, relative to the positions that a row trains (0: no
    clipping); the logged part `bound` is not clipped.
    """

    processes: ClassVar[tuple[type, ...]] = (WaveProcess,)

    max_weight: float = 3.0

    def __post_init__(self) -> None:
        check_bounds(self, max_weight=(0.0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        nats, weight, masked = _weighted_nats(model, batch, rng)
        bound = per_token((nats * weight).sum(-1), batch)
        limit = self.max_weight / model.process.duration(batch.tokens.shape[1])
        clipped = weight.clamp(max=limit) if self.max_weight else weight
        total = per_token((nats * clipped).sum(-1), batch).mean()
        weighted = masked & (weight > 0.0)
        masked_nll = (nats * weighted).sum() / weighted.sum().clamp(min=1)
        return Loss(total, {"bound": bound.mean().detach(), "masked_nll": masked_nll.detach()})


@dataclass(frozen=True)
class WaveLikelihood(Likelihood):
    """An upper bound on -log p(x), nats per row: the average of -log p over the orders of the wave, from one t per row.

    At the width 1 there is one order, from left to right, and the bound is exact on average.
    """

    processes: ClassVar[tuple[type, ...]] = (WaveProcess,)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One unbiased estimate per row; t is stratified over the rows."""
        nats, weight, _ = _weighted_nats(model, batch, rng)
        return (nats * weight).sum(-1)


def _weighted_nats(model: DiffusionModel, batch: Batch, rng: Rng) -> tuple[PerPosition, PerPosition, Mask]:
    """Nats at the masks that the wave is over, their weights, and all masks."""
    t = sample_times(model, batch, rng=rng)
    xt = add_noise(model, batch.tokens, t, batch, rng=rng.fork("noise"))
    weight = model.process.loss_weight(t, batch.tokens.shape[1]) * (-model.time_density.log_prob(t)).exp()[:, None]
    masked = model.process.is_noisy(xt) & batch.target_mask
    return model.denoiser(xt, t, batch=batch).nll(batch.tokens, masked & (weight > 0.0)), weight, masked
