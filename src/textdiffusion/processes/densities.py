"""Noise densities: which noise levels training sees. A law on t in [0, 1]; the schedule says what t means.

A density is separate from the process. It knows its own probability, so that a bound can be estimated under it, and its
quantiles are a sampling grid of equal information per step. What it learns is saved with the model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..randomness import Rng


@runtime_checkable
class Density(Protocol):
    """A law on t in [0, 1]."""

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]: ...

    def fitted(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"] | None: ...

    def settle(self) -> None: ...


def stratified(rng: Rng, total: int) -> Float[Tensor, " b"]:
    """Uniforms in (0, 1), one per row, that cover the interval evenly over the global batch of `total` rows.

    u_i = (u_0 + i / total) mod 1 with one shared u_0 (Kingma et al. 2021, appendix I.1).
    """
    u = (rng.shared_uniform() + (rng.rows % total) / total) % 1.0
    return u.clamp(2.0**-24, 1.0 - 2.0**-24)


class UniformDensity(nn.Module):
    """t uniform in [low, high]. A bound that draws from it alone needs the whole of [0, 1]."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls."""
        return self.low + (self.high - self.low) * u

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Equal steps of t over all of [0, 1], for sampling."""
        return u

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        inside = (t - 0.5 * (self.low + self.high)).abs() <= 0.5 * (self.high - self.low) + 1e-6  # draws are rounded
        return torch.where(inside, -math.log(self.high - self.low), -torch.inf)

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Nothing is learned."""
        return torch.zeros_like(nats)

    def fitted(self, t: Float[Tensor, "*b"]) -> None:
        """No curve of cross-entropy is."""

    def settle(self) -> None:
        """Nothing is learned."""


class CurveDensity(nn.Module, ABC):
    """The slope of an entropy curve L(t) = o + h G((t - mu) / b), cut to [0, 1]: equal drops of L are drawn alike.

    The curve (mu, ln b, ln h and perhaps o; mu and b in units of `unit`) follows the training losses; draws follow a
    moving average of it. A share `uniform` of the draws stays uniform in t.
    """

    def __init__(self, curve: Sequence[float], uniform: float, rate: float, unit: float = 1.0) -> None:
        super().__init__()
        self.curve = nn.Parameter(torch.tensor(curve))
        self.register_buffer("settled", self.curve.detach().clone())
        self.uniform, self.rate, self.unit = uniform, rate, unit

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls (the uniform share takes the smallest u)."""
        share = ((u - self.uniform) / (1.0 - self.uniform)).clamp(0.0, 1.0)
        warped = self._warped(share, *self._place(self.settled)).clamp(0.0, 1.0)
        return torch.where(u < self.uniform, u / max(self.uniform, 1e-30), warped)

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Quantiles of the curve alone: times of equal information, for sampling."""
        return self.quantile(self.uniform + u * (1.0 - self.uniform))

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        slope = self._slope(t, *self._place(self.settled))
        return torch.log((1.0 - self.uniform) * slope + self.uniform)

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Importance-weighted squares of the curve against cross-entropy in nats per token (CDCD, section 3.4).

        The weight 1 / p(t) matters: the draws come from the very density that is being learned.
        """
        weight = torch.exp(-self.log_prob(t))
        return weight * (self._curve(t, self.curve) - nats.detach()) ** 2

    def fitted(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The curve that the draws follow, in nats per token."""
        return self._curve(t, self.settled)

    @torch.no_grad()
    def settle(self) -> None:
        """Moves what is drawn from towards what was fitted: once after every training step, however it was cut up.

        A fit that is not finite is dropped; the last good curve stays.
        """
        self.curve.copy_(torch.where(self.curve.isfinite().all(), self.curve, self.settled))
        self.settled.lerp_(self.curve, self.rate)

    def _place(self, curve: Float[Tensor, " p"]) -> tuple[Tensor, Tensor]:
        """mu and b."""
        return curve[0] * self.unit, curve[1].clamp(-9.0, 4.0).exp() * self.unit

    def _curve(self, t: Tensor, curve: Float[Tensor, " p"]) -> Tensor:
        return curve[2].exp() * self._unit(t, *self._place(curve)) + curve[3:].sum()

    @abstractmethod
    def _unit(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        """G, which rises from about 0 to about 1."""

    @abstractmethod
    def _slope(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        """The slope of the curve over its rise between t = 0 and t = 1."""

    @abstractmethod
    def _warped(self, share: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        """The t at which the curve has made that share of its rise."""


class GumbelDensity(CurveDensity):
    """The entropy curve L(t) = h exp(-exp(-(t - mu) / b)) (LangFlow, eq. 11).

    Where t is the logarithm of the noise, this curve fits cross-entropy against noise better than arctan or logistic
    ones (specs: continuous 8.2).
    """

    def __init__(self, mu: float, scale: float, height: float, uniform: float = 0.1, rate: float = 0.01) -> None:
        super().__init__((mu, math.log(scale), math.log(height)), uniform, rate)

    def _unit(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(-torch.exp(((mu - t) / scale).clamp(max=80.0)))  # beyond, the gradient is 0 times infinity

    def _slope(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        low, high = self._unit(torch.stack((torch.zeros_like(mu), torch.ones_like(mu))), mu, scale)
        z = (t - mu) / scale
        return torch.exp(-z - torch.exp(-z)) / (scale * (high - low))

    def _warped(self, share: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        low, high = self._unit(torch.stack((torch.zeros_like(mu), torch.ones_like(mu))), mu, scale)
        # -log of v = low + share (high - low) from both ends: v itself is 0 or 1 in float32 well before t is.
        from_low = -torch.logaddexp(-torch.exp(mu / scale), torch.log(share * (high - low)))
        beyond = (1.0 - share) * (high - low) - torch.expm1(-torch.exp((mu - 1.0) / scale))
        nats = torch.where(beyond < 0.5, -torch.log1p(-beyond), from_low)
        return mu - scale * torch.log(nats)


class CauchyDensity(CurveDensity):
    """The entropy curve L(t) = o + h (A(t) - A(0)) / (A(1) - A(0)) with A = arctan((t - mu) / b), mini CDCD's warp.

    So o and h are losses at the ends, apart from mu and b, which are in units of the first b: the fit is then well
    conditioned, whatever range of noise [0, 1] stands for.
    """

    def __init__(self, mu: float, scale: float, height: float, uniform: float = 0.1, rate: float = 0.01) -> None:
        super().__init__((mu / scale, 0.0, math.log(height), 0.0), uniform, rate, unit=scale)

    def _unit(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        first, last = self._ends(mu, scale)
        return (first - torch.atan2(scale, t - mu)) / (first - last)

    def _slope(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        first, last = self._ends(mu, scale)
        return scale / ((first - last) * (scale**2 + (t - mu) ** 2))

    def _warped(self, share: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        return mu + scale / torch.tan(torch.lerp(*self._ends(mu, scale), share))

    @staticmethod
    def _ends(mu: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """pi / 2 - A at t = 0 and t = 1: small where A would be rounded to pi / 2."""
        return torch.atan2(scale, -mu), torch.atan2(scale, 1.0 - mu)
