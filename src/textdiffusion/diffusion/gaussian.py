"""The Gaussian process in the variance-exploding frame: x_t = x_0 + sigma eps. Sigma is its only noise coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.randomness import Rng
from .prediction import Prediction
from .schedules import SigmaSchedule


@dataclass(frozen=True)
class DiagonalNormal:
    """A diagonal normal law with one standard deviation per position."""

    mean: Float[Tensor, "b l d"]
    std: Float[Tensor, "b #l 1"]


class GaussianProcess(nn.Module):
    """q(x_t | x_0) = N(x_0, sigma(t)^2). Every paper's t, alpha-bar or beta is a schedule (specs: continuous 2)."""

    bidirectional: ClassVar[bool] = True  # predictions see what stands before and after a position

    def __init__(self, schedule: SigmaSchedule, grid: int = 0) -> None:
        """`grid`: training sees so many times, evenly from 0 to 1 (0: all times)."""
        super().__init__()
        self.schedule, self.num_levels = schedule, grid

    def snap_to_grid(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The time that training sees for a draw t of its density: t itself, or the point of the grid it falls to."""
        return (
            (t * self.num_levels).floor().clamp(max=self.num_levels - 1) / (self.num_levels - 1)
            if self.num_levels
            else t
        )

    def sigma(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The noise level at t."""
        return self.schedule.sigma(t)

    def time_conditioning(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """What a network is told about t: ln(sigma) / 4 (EDM, table 1)."""
        return torch.log(self.sigma(t)) / 4.0

    def dlogsigma_dt(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d ln sigma / dt, which turns a density of t into one of ln sigma; with its gradient to a learned schedule."""
        learning = torch.is_grad_enabled() and any(True for _ in self.parameters())
        with torch.enable_grad():
            at = t.detach().clone().requires_grad_()
            return torch.autograd.grad(torch.log(self.sigma(at)).sum(), at, create_graph=learning)[0]

    def sample_prior(self, like: Float[Tensor, "b l d"], *, rng: Rng) -> Float[Tensor, "b l d"]:
        """N(0, sigma(1)^2): x_0 is negligible beside the noise at t = 1."""
        return self.sigma(like.new_ones(())) * rng.normal(*like.shape[1:])

    def add_noise(self, x0: Float[Tensor, "b l d"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Float[Tensor, "b l d"]:
        """A draw of x_t given x_0."""
        return x0 + self.sigma_over(t, x0) * rng.normal(*x0.shape[1:])

    def forward_step(
        self, xs: Float[Tensor, "b l d"], s: Float[Tensor, "b *l"], t: Float[Tensor, "b *l"], *, rng: Rng
    ) -> Float[Tensor, "b l d"]:
        """A draw of x_t given x_s, t >= s."""
        added = self.sigma_over(t, xs) ** 2 - self.sigma_over(s, xs) ** 2
        return xs + torch.sqrt(added.clamp(min=0.0)) * rng.normal(*xs.shape[1:])

    def log_likelihood(
        self, xt: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position (a density)."""
        sigma = self.sigma_over(t, x0)
        squares = ((xt - x0) / sigma).square().sum(-1)
        return -0.5 * squares - x0.shape[-1] * (torch.log(sigma[..., 0]) + 0.5 * math.log(2.0 * math.pi))

    def posterior(
        self, xt: Float[Tensor, "b l d"], prediction: Prediction, t: Float[Tensor, "b *l"], s: Float[Tensor, "b *l"]
    ) -> DiagonalNormal:
        """p(x_s | x_t, x_0 = prediction.mean), the ancestral (DDPM) law in this frame."""
        return self.step(xt, prediction, t, s, eta=1.0)

    def step(
        self,
        xt: Float[Tensor, "b l d"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        *,
        eta: float,
        renoise: bool = False,
    ) -> DiagonalNormal:
        """The one-step rule x_s = x0 + sqrt(sigma_s^2 - z^2) (x_t - x0) / sigma_t + z eps (specs: continuous 4.1).

        z = eta sigma_s sqrt(1 - sigma_s^2 / sigma_t^2): eta = 0 is DDIM, Euler in this frame; eta = 1 is ancestral.
        `renoise` has z = sigma_s instead: all noise is new, and x_t matters through the prediction alone.
        """
        now, then = self.sigma_over(t, xt), self.sigma_over(s, xt)
        noise = then if renoise else eta * then * torch.sqrt((1.0 - (then / now) ** 2).clamp(min=0.0))
        x0 = prediction.mean
        return DiagonalNormal(x0 + torch.sqrt((then**2 - noise**2).clamp(min=0.0)) / now * (xt - x0), noise)

    def reverse(
        self,
        xt: Float[Tensor, "b l d"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        *,
        rng: Rng,
        eta: float = 1.0,
        renoise: bool = False,
        limit: float = 0.0,
    ) -> Float[Tensor, "b l d"]:
        """A draw of x_s: by default from the posterior; `eta` and `renoise` are other laws of the same marginals.

        Above 0, `limit` cuts the noise of every coordinate to so many standard deviations.
        """
        law = self.step(xt, prediction, t, s, eta=eta, renoise=renoise)
        if not (eta or renoise):
            return law.mean
        return law.mean + law.std * (rng.truncated_normal(limit, *xt.shape[1:]) if limit else rng.normal(*xt.shape[1:]))

    def sigma_over(self, t: Float[Tensor, "b *l"], x: Float[Tensor, "b l d"]) -> Float[Tensor, "b #l 1"]:
        """The noise level at t, of rows or of positions, to multiply states by."""
        sigma = self.sigma(t)
        return sigma[..., None] if sigma.ndim == x.ndim - 1 else sigma[:, None, None]
