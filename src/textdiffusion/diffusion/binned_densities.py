"""Time densities that are constant in each of many bins of t, fitted to the training losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.registry import builds, check_bounds
from ..core.types import PerRow, Times, Values
from .densities import TimeDensityConfig
from .fitted_density import FittedDensity
from .gaussian import GaussianProcess


@dataclass(frozen=True)
class TimeWarp(TimeDensityConfig):
    """CDCD's time warping: noise levels where a piecewise-linear curve, fitted to the losses, is steep."""

    processes: ClassVar = (GaussianProcess,)  # objectives of other processes do not fit a density

    bins: int = 100
    uniform_mix: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self, bins=(1, None), uniform_mix=(0.0, 0.99))


@builds(TimeWarp)
class TimeWarpDensity(FittedDensity):
    """CDCD's time warping: a monotone piecewise-linear fit of cross-entropy against t (section 3.4 and appendix A).

    The softmax of `fit[0]` is the width of each bin of [0, 1]. exp(`fit[1]`) is the rise of the loss in each bin, and
    its softmax the probability of the bin.
    """

    def __init__(self, bins: int = 100, uniform_mix: float = 0.0, rate: float = 0.01) -> None:
        super().__init__(torch.full((2, bins), -math.log(bins)), uniform_mix, rate)

    def icdf(self, u: Values) -> Values:
        width, prob = self._bins(self.averaged)
        edges, cdf = width.cumsum(0), prob.cumsum(0)
        i = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(max=len(width) - 1)
        return (edges[i] - width[i] + width[i] * (u - (cdf[i] - prob[i])) / prob[i]).clamp(0.0, 1.0)

    def sampling_times(self, u: Values) -> Values:
        """Quantiles of the draws, the uniform part included: times of equal loss drop where that is 0, for sampling."""
        return self.icdf(u)

    def _loss_curve(self, t: Tensor, fit: Float[Tensor, "2 n"]) -> Tensor:
        width, height = self._widths(fit[0]), fit[1].exp()
        i = self._bin_index(t, width)
        left_edge = width.cumsum(0)[i] - width[i]
        return height.cumsum(0)[i] - height[i] + height[i] * (t - left_edge) / width[i]

    def _log_prob(self, t: Tensor, fit: Float[Tensor, "2 n"]) -> Tensor:
        width, prob = self._bins(fit)
        i = self._bin_index(t, width)
        return torch.log(prob[i] / width[i])

    def _bins(self, fit: Float[Tensor, "2 n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """The width and the probability of every bin."""
        width = self._widths(fit[0])
        return width, (1.0 - self.uniform_mix) * fit[1].softmax(0) + self.uniform_mix * width

    @staticmethod
    def _widths(logits: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        width = logits.softmax(0) + 1e-4
        return width / width.sum()

    @staticmethod
    def _bin_index(t: Values, width: Float[Tensor, " n"]) -> Int[Tensor, "*b"]:
        return torch.searchsorted(width.detach().cumsum(0), t.contiguous(), right=True).clamp(max=len(width) - 1)


@dataclass(frozen=True)
class MinVariance(TimeDensityConfig):
    """The density that minimises the variance of the training bound, learned in `bins` of t; for GaussianELBO."""

    bins: int = 100
    uniform_mix: float = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, bins=(1, None), uniform_mix=(0.0, 0.99))


@builds(MinVariance)
class MinVarianceDensity(TimeWarpDensity):
    """The density under which an estimate of an integral over t varies least, in bins of equal width.

    Plaid (section 4.1, after VDM, appendix I) moves the inside of its schedule gamma(t) by the gradient of the squared
    loss. Where ln sigma is linear in t that inside is this density's quantile, and the gradient that of E[(L / p)^2].
    It is least where p is proportional to the root mean square of the integrand L.
    """

    def fitting_loss(self, t: Times, nats: PerRow) -> PerRow:
        """E[(L / p)^2] under the fitted density p, with draws from the averaged one; `nats` is L, not weighted."""
        # The gradient with respect to the edges would need the integrand on them, so widths are fixed.
        fit = torch.stack((self.fit[0].detach(), self.fit[1]))
        return nats.detach() ** 2 * torch.exp(-self.log_prob(t) - self._log_prob(t, fit))

    def predicted_loss(self, t: Values) -> None:
        """None: no curve of cross-entropy is learned."""


@dataclass(frozen=True)
class LossSecondMoment(TimeDensityConfig):
    """Draws in proportion to the loss, in `bins` of t; for an importance-weighted objective (DiffusionLM)."""

    processes: ClassVar = (GaussianProcess,)

    bins: int = 100
    uniform_mix: float = 1e-3

    def __post_init__(self) -> None:
        check_bounds(self, bins=(1, None), uniform_mix=(1e-6, 0.99))


@builds(LossSecondMoment)
class LossSecondMomentDensity(MinVarianceDensity):
    """The loss-aware time sampler: draws in proportion to the root mean square loss of their bin, importance-weighted.

    Nichol & Dhariwal 2021 (section 3.3) keep the last ten losses of every step; here the same distribution is fitted by
    gradients, which are summed over ranks and parts of a batch like all others. Sampling keeps equal steps of t, since
    the loss does not change most where it is largest.
    """

    def sampling_times(self, u: Values) -> Values:
        """Equal steps of t."""
        return u
