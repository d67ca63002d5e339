"""The likelihood bound of every Gaussian process, whatever its codec and training loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..batch import Batch
from ..model import Model
from ..prediction import Prediction
from ..processes.densities import stratified
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import corrupted
from .noised import predicted


def prior_nats(process: GaussianProcess, x0: Float[Tensor, "b l d"], batch: Batch) -> Float[Tensor, " b"]:
    """|x0|^2 / (2 sigma_max^2) per row: the noise at t = 1 against the prior."""
    high = process.sigma(torch.ones((), device=x0.device))
    return 0.5 * (x0.square().sum(-1) * batch.noised).sum(-1) / high**2


def missed_nats(
    process: GaussianProcess,
    x0: Float[Tensor, "b l d"],
    mean: Float[Tensor, "b l d"],
    t: Float[Tensor, " b"],
    batch: Batch,
) -> Float[Tensor, " b"]:
    """|x0 - D(x_t)|^2 / sigma^2 d ln sigma / dt per row: what the bound is the integral of, over t."""
    error = ((x0 - mean).square().sum(-1) * batch.noised).sum(-1)
    return error / process.sigma(t) ** 2 * process.log_slope(t)


class GaussianLikelihood(nn.Module):
    """An upper bound on -log p(x), nats per row, in the variance-exploding frame (specs: continuous 5.1; VDM, eq. 12):

        |x0|^2 / (2 sigma_max^2)  +  E[-log p(x | x_sigma_min)]  +  integral of |x0 - D(x_t)|^2 / sigma^2  d ln sigma

    The decoder of the middle term is Bayes' rule over the table with a uniform prior or, with `learned_decoder`, the
    model's own prediction at the lowest noise (Plaid). D is the posterior mean, with two passes where the denoiser
    takes self-conditioning, which keeps it a function of x_t alone, as the bound demands. A share `uniform` of the
    noise levels is drawn evenly in ln sigma so that no part of the integral goes unseen.
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, uniform: float = 0.2, *, learned_decoder: bool = False) -> None:
        super().__init__()
        self.uniform, self.learned_decoder = uniform, learned_decoder

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; the noise level is stratified over the rows."""
        process = model.process
        x0 = model.codec.encode(batch.ids)
        zero = torch.zeros(len(x0), device=x0.device)
        near = corrupted(model, x0, zero, batch, rng=rng.fork("decoder"))
        if self.learned_decoder:
            decoder = predicted(model, near, zero, batch)
        else:
            decoder = Prediction(model.codec.evidence(near, process.sigma(zero[0])))
        decoded = decoder.nll(batch.ids, batch.noised).sum(-1)
        t, log_density = self._draw(model, stratified(rng.fork("t"), batch.total or len(x0)))
        xt = corrupted(model, x0, t, batch, rng=rng.fork("noise"))
        missed = missed_nats(process, x0, predicted(model, xt, t, batch).mean, t, batch)
        return prior_nats(process, x0, batch) + decoded + missed * torch.exp(-log_density)

    def _draw(self, model: Model, u: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        share, process = self.uniform, model.process
        warped = model.density.quantile(((u - share) / (1.0 - share)).clamp(1e-6, 1.0 - 1e-6))
        low, high = process.sigma(torch.stack((u[0] * 0.0, u[0] * 0.0 + 1.0)))
        even = process.schedule.time(low * (high / low) ** (u / share))
        t = torch.where(u < share, even, warped)
        slope = process.log_slope(t) / torch.log(high / low)
        return t, torch.log((1.0 - share) * torch.exp(model.density.log_prob(t)) + share * slope)
