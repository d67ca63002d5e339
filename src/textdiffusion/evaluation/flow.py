"""The likelihood of the probability flow, the deterministic map from noise to states, to compare with the bound."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..objectives.base import add_noise, predict_x0
from ..objectives.gaussian_elbo import ends, reconstruction_nll
from ..scoring.likelihood import Likelihood, Windows, bits_per_character


class FlowLikelihood(nn.Module):
    """With y = x / sigma and r = 1 / sigma the flow is dy / dr = D(x, sigma), and -log p(x) is at most

        E[-log p(x | x_sigma_min)]  +  |y|^2 / 2 - n / 2 at sigma_max  +  integral of div_x D  d ln sigma

    in nats per row, n the number of coordinates, starting from x_sigma_min (Song et al. 2021, section 4.3). Heun's
    method takes the integral in `steps` equal steps of ln sigma, so the figure is a bound only in the limit. The
    divergence is Hutchinson's estimate, with one random sign per coordinate. Self-conditioning's two passes are both
    differentiated, as both are functions of x.
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, steps: int = 64, *, learned_decoder: bool = False) -> None:
        super().__init__()
        self.steps, self.learned_decoder = steps, learned_decoder

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """Nats per row, for one draw of x_sigma_min and of the signs."""
        process, x0, target = model.process, model.codec.encode(batch.tokens), batch.target_mask[..., None]
        sigma_min, sigma_max = ends(model, x0)
        sigmas = sigma_min * (sigma_max / sigma_min) ** torch.linspace(0.0, 1.0, self.steps + 1, device=x0.device)
        x_min = add_noise(model, x0, torch.zeros(len(x0), device=x0.device), batch, rng=rng.fork("decoder"))
        nats = reconstruction_nll(model, x_min, batch, self.learned_decoder)
        signs = torch.where(rng.fork("signs").uniform(*x0.shape[1:]) < 0.5, -1.0, 1.0) * target

        def slope(y: Tensor, sigma: Tensor) -> tuple[Float[Tensor, "b l d"], Float[Tensor, " b"]]:
            with torch.enable_grad():
                x = torch.where(target, y * sigma, x0).requires_grad_()
                mean = predict_x0(model, x, process.schedule.time(sigma).expand(len(x)), batch).mean
                (jacobian_signs,) = torch.autograd.grad((mean * signs).sum(), x)
            return mean.detach(), (jacobian_signs * signs).sum((1, 2))

        y, (mean, divergence) = x_min / sigma_min, slope(x_min / sigma_min, sigma_min)
        for sigma, next_sigma in pairwise(sigmas):
            step = 1.0 / next_sigma - 1.0 / sigma
            next_mean, next_divergence = slope(y + step * mean, next_sigma)
            y = y + 0.5 * step * (mean + next_mean)
            nats = nats + 0.5 * torch.log(next_sigma / sigma) * (divergence + next_divergence)
            mean, divergence = (next_mean, next_divergence) if next_sigma == sigma_max else slope(y, next_sigma)
        return nats + 0.5 * ((y.square() - 1.0) * target).sum((1, 2))


def flow_report(
    model: DiffusionModel,
    windows: Windows,
    *,
    learned_decoder: bool = False,
    steps: Sequence[int] = (16, 32, 64, 128),
    seed: int = 0,
    draws: int = 2,
) -> dict[int, Likelihood]:
    """The likelihood at every number of steps, under the same draws: a bound as far as the last ones agree.

    The protocol records the steps, so that these figures are not compared with bounds. Raises UserError for a process
    without a flow.
    """
    if not isinstance(model.process, GaussianProcess):
        raise UserError(f"Only a Gaussian process has a probability flow; this run has {type(model.process).__name__}.")
    flows = [FlowLikelihood(count, learned_decoder=learned_decoder) for count in steps]
    return {
        flow.steps: bits_per_character(model, windows, flow, seed=seed, draws=draws, about={"flow_steps": flow.steps})
        for flow in flows
    }
