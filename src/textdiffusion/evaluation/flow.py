"""The likelihood of the probability flow: the deterministic map from noise to states, for comparison with the bound."""

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
    """With y = x / sigma and r = 1 / sigma the flow is dy / dr = D(x, sigma), and -log p(x) is at most (specs: 5.3)

        E[-log p(x | x_sigma_min)]  +  |y|^2 / 2 - n / 2 at sigma_max  +  integral of div_x D  d ln sigma

    in nats per row, n the number of coordinates, from x_sigma_min on. The integral is taken by Heun's method in `steps`
    equal steps of ln sigma, so only its limit is a bound. The divergence is Hutchinson's, by one random sign for each
    coordinate. Two passes of self-conditioning are differentiated whole, as they are both functions of x.
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, steps: int = 64, *, learned_decoder: bool = False) -> None:
        super().__init__()
        self.steps, self.learned_decoder = steps, learned_decoder

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One draw per row of x_sigma_min and of the signs."""
        process, x0, free = model.process, model.codec.encode(batch.tokens), batch.target_mask[..., None]
        low, high = ends(model, x0)
        sigmas = low * (high / low) ** torch.linspace(0.0, 1.0, self.steps + 1, device=x0.device)
        near = add_noise(model, x0, torch.zeros(len(x0), device=x0.device), batch, rng=rng.fork("decoder"))
        nats = reconstruction_nll(model, near, batch, self.learned_decoder)
        signs = torch.where(rng.fork("signs").uniform(*x0.shape[1:]) < 0.5, -1.0, 1.0) * free

        def slope(y: Tensor, sigma: Tensor) -> tuple[Float[Tensor, "b l d"], Float[Tensor, " b"]]:
            with torch.enable_grad():
                x = torch.where(free, y * sigma, x0).requires_grad_()
                mean = predict_x0(model, x, process.schedule.time(sigma).expand(len(x)), batch).mean
                (change,) = torch.autograd.grad((mean * signs).sum(), x)
            return mean.detach(), (change * signs).sum((1, 2))

        y, (mean, spread) = near / low, slope(near / low, low)
        for now, then in pairwise(sigmas):
            step = 1.0 / then - 1.0 / now
            ahead, beyond = slope(y + step * mean, then)
            y, nats = y + 0.5 * step * (mean + ahead), nats + 0.5 * torch.log(then / now) * (spread + beyond)
            mean, spread = (ahead, beyond) if then == high else slope(y, then)
        return nats + 0.5 * ((y.square() - 1.0) * free).sum((1, 2))


def flow_report(
    model: DiffusionModel,
    windows: Windows,
    *,
    learned_decoder: bool = False,
    steps: Sequence[int] = (16, 32, 64, 128),
    seed: int = 0,
    draws: int = 2,
) -> dict[int, Likelihood]:
    """The figure at every number of steps, under the same draws: it is a bound as far as the last ones agree.

    The protocol records the steps, so that no such figure shares a table with bounds. Raises UserError where there is
    no flow.
    """
    if not isinstance(model.process, GaussianProcess):
        raise UserError(f"A {type(model.process).__name__} has no flow; it is Gaussian processes that have one.")
    flows = [FlowLikelihood(count, learned_decoder=learned_decoder) for count in steps]
    return {
        flow.steps: bits_per_character(model, windows, flow, seed=seed, draws=draws, about={"flow_steps": flow.steps})
        for flow in flows
    }
