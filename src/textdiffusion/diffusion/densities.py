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
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.randomness import Rng


@runtime_checkable
class TimeDensity(Protocol):
    """A law on t in [0, 1]."""

    def icdf(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def sampling_times(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def fitting_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]: ...

    def predicted_loss(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"] | None: ...

    def update_average(self) -> None: ...


def low_discrepancy(rng: Rng, total: int) -> Float[Tensor, " b"]:
    """Uniforms in (0, 1), one per row, that cover the interval evenly over the global batch of `total` rows.

    u_i = (u_0 + i / total) mod 1 with one shared u_0 (Kingma et al. 2021, appendix I.1).
    """
    u = (rng.shared_uniform() + (rng.row_ids % total) / total) % 1.0
    return u.clamp(2.0**-24, 1.0 - 2.0**-24)


class UniformDensity(nn.Module):
    """t uniform in [low, high]. A bound that draws from it alone needs the whole of [0, 1]."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def icdf(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls."""
        return self.low + (self.high - self.low) * u

    def sampling_times(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Equal steps of t over all of [0, 1], for sampling."""
        return u

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        inside = (t - 0.5 * (self.low + self.high)).abs() <= 0.5 * (self.high - self.low) + 1e-6  # draws are rounded
        return torch.where(inside, -math.log(self.high - self.low), -torch.inf)

    def fitting_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Nothing is learned."""
        return torch.zeros_like(nats)

    def predicted_loss(self, t: Float[Tensor, "*b"]) -> None:
        """No curve of cross-entropy is."""

    def update_average(self) -> None:
        """Nothing is learned."""


class CurveDensity(nn.Module, ABC):
    """The slope of an entropy curve L(t) = o + h G((t - mu) / b), cut to [0, 1]: equal drops of L are drawn alike.

    The curve (mu, ln b, ln h and perhaps o; mu and b in units of `unit`) follows the training losses; draws follow a
    moving average of it. A share `uniform` of the draws stays uniform in t.
    """

    def __init__(self, curve: Sequence[float], uniform: float, rate: float, unit: float = 1.0) -> None:
        super().__init__()
        self.curve = nn.Parameter(torch.tensor(curve))
        self.register_buffer("averaged", self.curve.detach().clone())
        self.uniform, self.rate, self.unit = uniform, rate, unit

    def icdf(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls (the uniform share takes the smallest u)."""
        share = ((u - self.uniform) / (1.0 - self.uniform)).clamp(0.0, 1.0)
        warped = self._warped(share, *self._place(self.averaged)).clamp(0.0, 1.0)
        return torch.where(u < self.uniform, u / max(self.uniform, 1e-30), warped)

    def sampling_times(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Quantiles of the curve alone: times of equal information, for sampling."""
        return self.icdf(self.uniform + u * (1.0 - self.uniform))

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        slope = self._slope(t, *self._place(self.averaged))
        return torch.log((1.0 - self.uniform) * slope + self.uniform)

    def fitting_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Importance-weighted squares of the curve against cross-entropy in nats per token (CDCD, section 3.4).

        The weight 1 / p(t) matters: the draws come from the very density that is being learned.
        """
        weight = torch.exp(-self.log_prob(t))
        return weight * (self._curve(t, self.curve) - nats.detach()) ** 2

    def predicted_loss(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The curve that the draws follow, in nats per token."""
        return self._curve(t, self.averaged)

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves what is drawn from towards what was fitted: once after every training step, however it was cut up.

        A fit that is not finite is dropped; the last good curve stays.
        """
        self.curve.copy_(torch.where(self.curve.isfinite().all(), self.curve, self.averaged))
        self.averaged.lerp_(self.curve, self.rate)

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


class TimeWarpDensity(nn.Module):
    """CDCD's time warping: a monotone piecewise-linear fit of cross-entropy against t (section 3.4 and appendix A).

    Edges T (cumulative softmax of `widths`) cut [0, 1] into bins; heights exp(`heights`) regress the loss, and their
    softmax is the share of draws a bin gets. A moving average of both is used for the draws.
    """

    def __init__(self, bins: int = 100, uniform: float = 0.0, rate: float = 0.01) -> None:
        super().__init__()
        start = torch.full((2, bins), -math.log(bins))
        self.logits = nn.Parameter(start)
        self.register_buffer("averaged", start.clone())
        self.uniform, self.rate = uniform, rate

    def icdf(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls."""
        width, share = self._shares(self.averaged)
        edges, levels = width.cumsum(0), share.cumsum(0)
        i = torch.searchsorted(levels, u.contiguous(), right=True).clamp(max=len(width) - 1)
        return (edges[i] - width[i] + width[i] * (u - (levels[i] - share[i])) / share[i]).clamp(0.0, 1.0)

    def sampling_times(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Quantiles of the draws, the uniform share too: times of equal loss drop where that is 0, for sampling."""
        return self.icdf(u)

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        return self._log_prob(t, self.averaged)

    def fitting_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Importance-weighted squares of the fit against cross-entropy in nats per token."""
        weight = torch.exp(-self.log_prob(t))
        return weight * (self._curve(t, self.logits) - nats.detach()) ** 2

    def predicted_loss(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"] | None:
        """The curve that the draws follow, in nats per token."""
        return self._curve(t, self.averaged)

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves what is drawn from towards what was fitted: once after every training step, however it was cut up.

        A fit that is not finite is dropped; the last good one stays.
        """
        self.logits.copy_(torch.where(self.logits.isfinite().all(), self.logits, self.averaged))
        self.averaged.lerp_(self.logits, self.rate)

    def _curve(self, t: Tensor, logits: Float[Tensor, "2 n"]) -> Tensor:
        width, height = self._widths(logits[0]), logits[1].exp()
        i = self._bin(t, width)
        start = width.cumsum(0)[i] - width[i]
        return height.cumsum(0)[i] - height[i] + height[i] * (t - start) / width[i]

    def _log_prob(self, t: Tensor, logits: Float[Tensor, "2 n"]) -> Tensor:
        width, share = self._shares(logits)
        i = self._bin(t, width)
        return torch.log(share[i] / width[i])

    def _shares(self, logits: Float[Tensor, "2 n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        width = self._widths(logits[0])
        return width, (1.0 - self.uniform) * logits[1].softmax(0) + self.uniform * width

    @staticmethod
    def _widths(logits: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        width = logits.softmax(0) + 1e-4
        return width / width.sum()

    @staticmethod
    def _bin(t: Float[Tensor, "*b"], width: Float[Tensor, " n"]) -> Int[Tensor, "*b"]:
        return torch.searchsorted(width.detach().cumsum(0), t.contiguous(), right=True).clamp(max=len(width) - 1)


class MinVarianceDensity(TimeWarpDensity):
    """The density under which an estimate of an integral over t varies least, in bins of equal width.

    Plaid (section 4.1, after VDM, appendix I) moves the inside of its schedule gamma(t) by the gradient of the squared
    loss. Where ln sigma is linear in t that inside is this density's quantile, and the gradient that of E[(L / p)^2].
    It is least where p is proportional to the root mean square of the integrand L.
    """

    def fitting_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """E[(L / p)^2] under the density being fitted, by draws from the settled one; L, in `nats`, is not weighted."""
        shares = torch.stack((self.logits[0].detach(), self.logits[1]))  # edges would need what happens on them
        return nats.detach() ** 2 * torch.exp(-self.log_prob(t) - self._log_prob(t, shares))

    def predicted_loss(self, t: Float[Tensor, "*b"]) -> None:
        """No curve of cross-entropy is."""


class LossSecondMomentDensity(MinVarianceDensity):
    """The loss-aware time sampler: draws in proportion to the root mean square loss of their bin, importance-weighted.

    Nichol & Dhariwal 2021 (section 3.3) keep the last ten losses of every step; here the same law is fitted by the
    gradient, which ranks and the parts of a batch sum as they do all others. Sampling keeps equal steps of t: where the
    loss is large is not where it changes.
    """

    def sampling_times(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return u
