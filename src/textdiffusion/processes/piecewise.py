"""Noise densities of bins: CDCD's time warp, and the density of least variance that Plaid's schedule is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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
        width, share = self._shares(self.settled)
        edges, levels = width.cumsum(0), share.cumsum(0)
        i = torch.searchsorted(levels, u.contiguous(), right=True).clamp(max=len(width) - 1)
        return (edges[i] - width[i] + width[i] * (u - (levels[i] - share[i])) / share[i]).clamp(0.0, 1.0)

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Quantiles of the draws, the uniform share too: times of equal loss drop where that is 0, for sampling."""
        return self.quantile(u)

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        return self._log_prob(t, self.settled)

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Importance-weighted squares of the fit against cross-entropy in nats per token."""
        weight = torch.exp(-self.log_prob(t))
        return weight * (self._curve(t, self.logits) - nats.detach()) ** 2

    def fitted(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"] | None:
        """The curve that the draws follow, in nats per token."""
        return self._curve(t, self.settled)

    @torch.no_grad()
    def settle(self) -> None:
        """Moves what is drawn from towards what was fitted: once after every training step, however it was cut up.

        A fit that is not finite is dropped; the last good one stays.
        """
        self.logits.copy_(torch.where(self.logits.isfinite().all(), self.logits, self.settled))
        self.settled.lerp_(self.logits, self.rate)

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


class SteadyDensity(PiecewiseDensity):
    """The density under which an estimate of an integral over t varies least, in bins of equal width.

    Plaid (section 4.1, after VDM, appendix I) moves the inside of its schedule gamma(t) by the gradient of the squared
    loss. Where ln sigma is linear in t that inside is this density's quantile, and the gradient that of E[(L / p)^2].
    It is least where p is proportional to the root mean square of the integrand L.
    """

    def fit_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """E[(L / p)^2] under the density being fitted, by draws from the settled one; L, in `nats`, is not weighted."""
        shares = torch.stack((self.logits[0].detach(), self.logits[1]))  # edges would need what happens on them
        return nats.detach() ** 2 * torch.exp(-self.log_prob(t) - self._log_prob(t, shares))

    def fitted(self, t: Float[Tensor, "*b"]) -> None:
        """No curve of cross-entropy is."""


class LossAwareDensity(SteadyDensity):
    """The loss-aware time sampler: draws in proportion to the root mean square loss of their bin, importance-weighted.

    Nichol & Dhariwal 2021 (section 3.3) keep the last ten losses of every step; here the same law is fitted by the
    gradient, which ranks and the parts of a batch sum as they do all others. Sampling keeps equal steps of t: where the
    loss is large is not where it changes.
    """

    def grid(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return u
