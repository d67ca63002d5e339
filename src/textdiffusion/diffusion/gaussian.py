"""The Gaussian process in the variance-exploding frame: x_t = x_0 + sigma eps. Sigma is its only noise coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..core.randomness import Rng
from ..core.registry import builds, check_bounds
from ..core.types import NoiseTimes, PerPosition, Sigma, Values, Vectors
from .prediction import Prediction
from .process import ProcessConfig
from .sigma_schedules import LogSigma, NoiseSchedule, SigmaSchedule
from .table_codecs import TableCodec


@dataclass(frozen=True)
class DiagonalNormal:
    """A diagonal normal distribution with one standard deviation per position."""

    mean: Vectors
    std: Sigma


@dataclass(frozen=True)
class Gaussian(ProcessConfig):
    """Vectors receive Gaussian noise. The schedule's levels are in units of the norm of a clean state."""

    codecs: ClassVar = (TableCodec,)

    schedule: SigmaSchedule = LogSigma()

    def __post_init__(self) -> None:
        if hasattr(self.schedule, "sigma_min"):  # in norms here; what is built from it may be far smaller
            check_bounds(self.schedule, sigma_min=(1e-6, None))


@builds(Gaussian)
class GaussianProcess(nn.Module):
    """q(x_t | x_0) = N(x_0, sigma(t)^2). The t, alpha-bar or beta of every paper is a schedule.

    `num_levels`: training sees that many times, evenly from 0 to 1 (0: all times).
    """

    bidirectional: ClassVar[bool] = True  # predictions see the positions before and after their own

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule, self.num_levels = schedule, schedule.num_levels

    @classmethod
    def from_config(cls, part: Gaussian, *, codec: TableCodec, **context: Any) -> GaussianProcess:
        """The process with its schedule in the units of the codec's states."""
        return cls(part.schedule.scaled(codec.norm, codec.dim))

    def snap_to_grid(self, t: Values) -> Values:
        """The grid point that training uses for a sample t of its density; t itself if there is no grid."""
        if not self.num_levels:
            return t
        return (t * self.num_levels).floor().clamp(max=self.num_levels - 1) / (self.num_levels - 1)

    def sigma(self, t: Values) -> Values:
        """The noise level at t."""
        return self.schedule.sigma(t)

    def time_conditioning(self, t: Values) -> Values:
        """The value a time-conditioned network receives for t: ln(sigma) / 4 (EDM, table 1)."""
        return torch.log(self.sigma(t)) / 4.0

    def dlogsigma_dt(self, t: Values) -> Values:
        """d ln sigma / dt, which turns a density of t into one of ln sigma; differentiable in a learned schedule."""
        create_graph = torch.is_grad_enabled() and any(True for _ in self.parameters())
        with torch.enable_grad():
            times = t.detach().clone().requires_grad_()
            return torch.autograd.grad(torch.log(self.sigma(times)).sum(), times, create_graph=create_graph)[0]

    def sample_prior(self, like: Vectors, *, rng: Rng) -> Vectors:
        """N(0, sigma(1)^2): x_0 is negligible beside the noise at t = 1."""
        return self.sigma(like.new_ones(1)) * rng.normal(*like.shape[1:])

    def add_noise(self, x0: Vectors, t: NoiseTimes, *, rng: Rng) -> Vectors:
        """A sample of q(x_t | x_0)."""
        return x0 + self.sigma_over(t, x0) * rng.normal(*x0.shape[1:])

    def forward_step(self, xs: Vectors, s: NoiseTimes, t: NoiseTimes, *, rng: Rng) -> Vectors:
        """A sample of q(x_t | x_s), t >= s."""
        added_variance = self.sigma_over(t, xs) ** 2 - self.sigma_over(s, xs) ** 2
        return xs + torch.sqrt(added_variance.clamp(min=0.0)) * rng.normal(*xs.shape[1:])

    def log_likelihood(self, xt: Vectors, x0: Vectors, t: NoiseTimes) -> PerPosition:
        """log q(x_t | x_0) in nats per position (a density)."""
        sigma = self.sigma_over(t, x0)
        squares = ((xt - x0) / sigma).square().sum(-1)
        return -0.5 * squares - x0.shape[-1] * (torch.log(sigma[..., 0]) + 0.5 * math.log(2.0 * math.pi))

    def posterior(self, xt: Vectors, prediction: Prediction, t: NoiseTimes, s: NoiseTimes) -> DiagonalNormal:
        """p(x_s | x_t, x_0 = prediction.mean), the ancestral (DDPM) distribution in this frame."""
        return self.step(xt, prediction, t, s, eta=1.0)

    def step(
        self, xt: Vectors, prediction: Prediction, t: NoiseTimes, s: NoiseTimes, *, eta: float, renoise: bool = False
    ) -> DiagonalNormal:
        """The distribution of x_s = x0 + sqrt(sigma_s^2 - z^2) (x_t - x0) / sigma_t + z eps (DDIM, eq. 12).

        z = eta sigma_s sqrt(1 - sigma_s^2 / sigma_t^2): eta = 0 is DDIM, Euler in this frame; eta = 1 is ancestral.
        `renoise` sets z = sigma_s instead: all noise is new, and x_t matters only through the prediction.
        """
        sigma_t, sigma_s = self.sigma_over(t, xt), self.sigma_over(s, xt)
        std = sigma_s if renoise else eta * sigma_s * torch.sqrt((1.0 - (sigma_s / sigma_t) ** 2).clamp(min=0.0))
        x0 = prediction.mean
        return DiagonalNormal(x0 + torch.sqrt((sigma_s**2 - std**2).clamp(min=0.0)) / sigma_t * (xt - x0), std)

    def reverse(
        self,
        xt: Vectors,
        prediction: Prediction,
        t: NoiseTimes,
        s: NoiseTimes,
        *,
        rng: Rng,
        eta: float = 1.0,
        renoise: bool = False,
        limit: float = 0.0,
    ) -> Vectors:
        """A sample of x_s, by default from the posterior; `eta` and `renoise` select other rules with its marginals.

        A positive `limit` truncates the noise of every coordinate at that many standard deviations.
        """
        distribution = self.step(xt, prediction, t, s, eta=eta, renoise=renoise)
        if not (eta or renoise):
            return distribution.mean
        shape = xt.shape[1:]
        noise = rng.truncated_normal(limit, *shape) if limit else rng.normal(*shape)
        return distribution.mean + distribution.std * noise

    def sigma_over(self, t: NoiseTimes, x: Vectors) -> Sigma:
        """The noise level at t, one per row or per position, shaped to multiply states."""
        sigma = self.sigma(t)
        return sigma[..., None] if sigma.ndim == x.ndim - 1 else sigma[:, None, None]
