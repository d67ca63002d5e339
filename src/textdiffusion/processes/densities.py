"""Noise densities: which noise levels training sees. A law on t in [0, 1]; the schedule says what t means.

A density is separate from the process. It knows its own probability, so that a bound can be estimated under it, and its
quantiles are a sampling grid of equal information per step. What it learns is saved with the model.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..randomness import Rng


@runtime_checkable
class Density(Protocol):
    """A law on t in [0, 1]."""

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]: ...

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, ""]: ...

    def settle(self) -> None: ...


def stratified(rng: Rng, total: int) -> Float[Tensor, " b"]:
    """Uniforms in (0, 1), one per row, that cover the interval evenly over the global batch of `total` rows.

    u_i = (u_0 + i / total) mod 1 with one shared u_0 (Kingma et al. 2021, appendix I.1).
    """
    u = (rng.shared_uniform() + (rng.rows % total) / total) % 1.0
    return u.clamp(2.0**-24, 1.0 - 2.0**-24)


class UniformDensity(nn.Module):
    """t uniform in [low, high]. A bound needs the whole of [0, 1]."""

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
        return torch.full_like(t, -math.log(self.high - self.low))

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Nothing is learned."""
        return nats.new_zeros(())

    def settle(self) -> None:
        """Nothing is learned."""


class GumbelDensity(nn.Module):
    """The slope of the entropy curve L(t) = h exp(-exp(-(t - mu) / b)) (LangFlow, eq. 11), cut to [0, 1].

    Where t is the logarithm of the noise, this curve fits cross-entropy against noise better than arctan or logistic
    ones (specs: continuous 8.2). h, mu and b follow the training losses; a share `uniform` of the draws stays uniform
    in t.
    """

    def __init__(self, mu: float, scale: float, height: float, uniform: float = 0.1, rate: float = 0.01) -> None:
        super().__init__()
        self.curve = nn.Parameter(torch.tensor([mu, math.log(scale), math.log(height)]))
        self.register_buffer("settled", self.curve.detach().clone())
        self.uniform, self.rate = uniform, rate

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls (the uniform share takes the smallest u)."""
        mu, scale = self.settled[0], self.settled[1].exp()
        low, high = self._ends()
        share = ((u - self.uniform) / (1.0 - self.uniform)).clamp(0.0, 1.0)
        # -log of v = low + share (high - low) from both ends: v itself is 0 or 1 in float32 well before t is.
        from_low = -torch.logaddexp(-torch.exp(mu / scale), torch.log(share * (high - low)))
        beyond = (1.0 - share) * (high - low) - torch.expm1(-torch.exp((mu - 1.0) / scale))
        nats = torch.where(beyond < 0.5, -torch.log1p(-beyond), from_low)
        warped = (mu - scale * torch.log(nats)).clamp(0.0, 1.0)
        return torch.where(u < self.uniform, u / max(self.uniform, 1e-30), warped)

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Quantiles of the curve alone: times of equal information, for sampling."""
        return self.quantile(self.uniform + u * (1.0 - self.uniform))

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        mu, log_scale = self.settled[0], self.settled[1]
        low, high = self._ends()
        z = (t - mu) * torch.exp(-log_scale)
        curve = torch.exp(-z - torch.exp(-z) - log_scale) / (high - low)
        return torch.log((1.0 - self.uniform) * curve + self.uniform)

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Importance-weighted squares of the curve against cross-entropy in nats per token (CDCD, section 3.4).

        The weight 1 / p(t) matters: the draws come from the very density that is being learned.
        """
        weight = torch.exp(-self.log_prob(t))
        fitted = self.curve[2].exp() * torch.exp(-torch.exp(-(t - self.curve[0]) * torch.exp(-self.curve[1])))
        return (weight * (fitted - nats.detach()) ** 2).mean()

    @torch.no_grad()
    def settle(self) -> None:
        """Moves what is drawn from towards what was fitted: once after every training step, however it was cut up."""
        self.settled.lerp_(self.curve, self.rate)

    def _ends(self) -> tuple[Tensor, Tensor]:
        ends = torch.stack((torch.zeros_like(self.settled[0]), torch.ones_like(self.settled[0])))
        low, high = torch.exp(-torch.exp(-(ends - self.settled[0]) * torch.exp(-self.settled[1])))
        return low, high


class PiecewiseDensity(nn.Module):
    """CDCD's time warping: a monotone piecewise-linear fit of cross-entropy against t (section 3.4 and appendix A).

    Edges T (cumulative softmax of `widths`) cut [0, 1] into bins; heights exp(`heights`) regress the loss, and their
    softmax is the share of draws a bin gets. A moving average of both is used for the draws.
    """

    def __init__(self, bins: int = 100, uniform: float = 0.0, rate: float = 0.01) -> None:
        super().__init__()
        start = torch.full((2, bins), -math.log(bins))
        self.logits = nn.Parameter(start)
        self.register_buffer("settled", start.clone())
        self.uniform, self.rate = uniform, rate

    def quantile(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t below which a share u of the draws falls."""
        width, share = self._shares()
        edges, levels = width.cumsum(0), share.cumsum(0)
        i = torch.searchsorted(levels, u.contiguous(), right=True).clamp(max=len(width) - 1)
        return (edges[i] - width[i] + width[i] * (u - (levels[i] - share[i])) / share[i]).clamp(0.0, 1.0)

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Times of equal loss drop, for sampling."""
        return self.quantile(u)

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        width, share = self._shares()
        i = self._bin(t, width)
        return torch.log(share[i] / width[i])

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Importance-weighted squares of the fit against cross-entropy in nats per token."""
        weight = torch.exp(-self.log_prob(t))
        width, height = self._widths(self.logits[0]), self.logits[1].exp()
        i = self._bin(t, width)
        start = width.cumsum(0)[i] - width[i]
        fitted = height.cumsum(0)[i] - height[i] + height[i] * (t - start) / width[i]
        return (weight * (fitted - nats.detach()) ** 2).mean()

    @torch.no_grad()
    def settle(self) -> None:
        """Moves what is drawn from towards what was fitted: once after every training step, however it was cut up."""
        self.settled.lerp_(self.logits, self.rate)

    def _shares(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        width = self._widths(self.settled[0])
        return width, (1.0 - self.uniform) * self.settled[1].softmax(0) + self.uniform * width

    @staticmethod
    def _widths(logits: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        width = logits.softmax(0) + 1e-4
        return width / width.sum()

    @staticmethod
    def _bin(t: Float[Tensor, "*b"], width: Float[Tensor, " n"]) -> Int[Tensor, "*b"]:
        return torch.searchsorted(width.detach().cumsum(0), t.contiguous(), right=True).clamp(max=len(width) - 1)
