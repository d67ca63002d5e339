"""The likelihood of the probability flow: the deterministic map from noise to states, for comparison with the bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.types import PerRow
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..objectives.base import add_noise
from ..objectives.gaussian_elbo import reconstruction_nll, sigma_range
from ..objectives.noised_batch import predict_x0
from ..scoring.likelihood import LikelihoodEstimate, Windows, bits_per_character


@dataclass(frozen=True)
class FlowLikelihood:
    """With y = x / sigma and r = 1 / sigma the flow is dy / dr = D(x, sigma), and -log p(x) is at most

        E[-log p(x | x_sigma_min)]  +  |y|^2 / 2 - n / 2 at sigma_max  +  integral of div_x D  d ln sigma

    in nats per row, n the number of coordinates, from x_sigma_min on. Heun's method takes the integral in `steps` equal
    steps of ln sigma, so only the limit of many steps is a bound. The divergence is Hutchinson's estimate with one
    random sign per coordinate (Song et al. 2021, appendix D.2). With self-conditioning, both passes are differentiated,
    as both are functions of x.

    It is a diagnostic and not a choice for `likelihood` in a configuration.
    """

    steps: int = 64
    learned_decoder: bool = False

    exact: ClassVar[bool] = False
    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One draw of x_sigma_min and of the signs per row."""
        process, x0, target = model.process, model.codec.encode(batch.tokens), batch.target_mask[..., None]
        low, high = sigma_range(model, x0)
        sigmas = low * (high / low) ** torch.linspace(0.0, 1.0, self.steps + 1, device=x0.device)
        x_min = add_noise(model, x0, torch.zeros(len(x0), device=x0.device), batch, rng=rng.fork("decoder"))
        nats = reconstruction_nll(model, x_min, batch, self.learned_decoder)
        signs = torch.where(rng.fork("signs").uniform(*x0.shape[1:]) < 0.5, -1.0, 1.0) * target

        def flow(y: Tensor, sigma: Tensor) -> tuple[Float[Tensor, "b l d"], PerRow]:
            """dy / dr and the divergence of D."""
            with torch.enable_grad():
                x = torch.where(target, y * sigma, x0).requires_grad_()
                mean = predict_x0(model, x, process.schedule.time(sigma).expand(len(x)), batch).mean
                (gradient,) = torch.autograd.grad((mean * signs).sum(), x)
            return mean.detach(), (gradient * signs).sum((1, 2))

        y, (slope, divergence) = x_min / low, flow(x_min / low, low)
        for sigma, next_sigma in pairwise(sigmas):
            step = 1.0 / next_sigma - 1.0 / sigma
            next_slope, next_divergence = flow(y + step * slope, next_sigma)
            y = y + 0.5 * step * (slope + next_slope)
            nats = nats + 0.5 * torch.log(next_sigma / sigma) * (divergence + next_divergence)
            slope, divergence = (next_slope, next_divergence) if next_sigma == high else flow(y, next_sigma)
        return nats + 0.5 * ((y.square() - 1.0) * target).sum((1, 2))


def flow_report(
    model: DiffusionModel,
    windows: Windows,
    *,
    learned_decoder: bool = False,
    steps: Sequence[int] = (16, 32, 64, 128),
    seed: int = 0,
    draws: int = 2,
) -> dict[int, LikelihoodEstimate]:
    """The estimate for each number of steps, under the same noise: it is a bound as far as the last ones agree.

    The protocol records the steps, so these figures share no table with bounds. Raises UserError if the model's process
    has no flow.
    """
    if not isinstance(model.process, GaussianProcess):
        raise UserError(f"{type(model.process).__name__} has no probability flow; only Gaussian processes have one.")

    def estimate(count: int) -> LikelihoodEstimate:
        flow = FlowLikelihood(count, learned_decoder=learned_decoder)
        return bits_per_character(model, windows, flow, seed=seed, draws=draws, metadata={"flow_steps": count})

    return {count: estimate(count) for count in steps}
