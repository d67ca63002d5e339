"""Time densities that are the slope of a parametric curve of cross-entropy against t, fitted to the training losses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.registry import builds, check_bounds
from ..core.types import Values
from .densities import TimeDensityConfig
from .fitted_density import FittedDensity
from .gaussian import GaussianProcess
from .sigma_schedules import LogSigma
from .table_codecs import TableCodec


class CurveDensity(FittedDensity, ABC):
    """The slope of an entropy curve L(t) = o + h G((t - mu) / b) on [0, 1]: equal drops of L are equally likely.

    `fit` is (mu, ln b, ln h and perhaps o), with mu and b in units of `unit`.
    """

    def __init__(self, fit: Sequence[float], uniform_mix: float, rate: float, unit: float = 1.0) -> None:
        super().__init__(torch.tensor(fit), uniform_mix, rate)
        self.unit = unit

    def icdf(self, u: Values) -> Values:
        """The t of every u; the uniform part of the mixture takes the smallest u, so t does not rise with all of u."""
        curve_u = ((u - self.uniform_mix) / (1.0 - self.uniform_mix)).clamp(0.0, 1.0)
        t = self._inverse(curve_u, *self._location_and_scale(self.averaged)).clamp(0.0, 1.0)
        return torch.where(u < self.uniform_mix, u / max(self.uniform_mix, 1e-30), t)

    def sampling_times(self, u: Values) -> Values:
        """Quantiles of the curve alone: times of equal information, for sampling."""
        return self.icdf(self.uniform_mix + u * (1.0 - self.uniform_mix))

    def _log_prob(self, t: Tensor, fit: Float[Tensor, " p"]) -> Tensor:
        slope = self._slope(t, *self._location_and_scale(fit))
        return torch.log((1.0 - self.uniform_mix) * slope + self.uniform_mix)

    def _location_and_scale(self, fit: Float[Tensor, " p"]) -> tuple[Tensor, Tensor]:
        """mu and b."""
        return fit[0] * self.unit, fit[1].clamp(-9.0, 4.0).exp() * self.unit

    def _loss_curve(self, t: Tensor, fit: Float[Tensor, " p"]) -> Tensor:
        return fit[2].exp() * self._standard_curve(t, *self._location_and_scale(fit)) + fit[3:].sum()

    @abstractmethod
    def _standard_curve(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        """G, which rises from about 0 to about 1."""

    @abstractmethod
    def _slope(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        """The slope of the curve over its rise between t = 0 and t = 1."""

    @abstractmethod
    def _inverse(self, u: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        """The t at which the curve has made the fraction u of its rise."""


@dataclass(frozen=True)
class Gumbel(TimeDensityConfig):
    """The slope of a Gumbel curve in ln sigma, refitted to the training losses.

    Before it is fitted, it is steepest at `midpoint` norms of a clean state, where a token without context loses about
    half of its information.
    """

    processes: ClassVar = (GaussianProcess,)

    midpoint: float = 0.43
    scale: float = 0.46
    uniform_mix: float = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, midpoint=(1e-6, None), scale=(1e-3, None), uniform_mix=(0.0, 0.99))


@builds(Gumbel)
class GumbelDensity(CurveDensity):
    """The entropy curve L(t) = h exp(-exp(-(t - mu) / b)) (LangFlow, eq. 11).

    Where t is the logarithm of the noise, this curve fits cross-entropy better than arctan or logistic ones.
    """

    def __init__(self, mu: float, scale: float, height: float, uniform_mix: float = 0.1, rate: float = 0.01) -> None:
        super().__init__((mu, math.log(scale), math.log(height)), uniform_mix, rate)

    @classmethod
    def from_config(cls, part: Gumbel, *, codec: TableCodec, process: GaussianProcess, **context: Any) -> GumbelDensity:
        """The curve in the t of the process, whose schedule must be linear in ln sigma."""
        schedule = process.schedule
        assert isinstance(schedule, LogSigma), "config.compatibility refuses other schedules"
        log_ratio = math.log(schedule.sigma_max / schedule.sigma_min)
        mu = math.log(part.midpoint * codec.norm / schedule.sigma_min) / log_ratio
        return cls(mu, part.scale / log_ratio, math.log(codec.vocab_size), part.uniform_mix)

    def _standard_curve(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        return torch.exp(-torch.exp(((mu - t) / scale).clamp(max=80.0)))  # beyond, the gradient is 0 times infinity

    def _slope(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        low, high = self._standard_curve(torch.stack((torch.zeros_like(mu), torch.ones_like(mu))), mu, scale)
        z = (t - mu) / scale
        return torch.exp(-z - torch.exp(-z)) / (scale * (high - low))

    def _inverse(self, u: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        low, high = self._standard_curve(torch.stack((torch.zeros_like(mu), torch.ones_like(mu))), mu, scale)
        # -log of v = low + u (high - low) from both ends: v itself is 0 or 1 in float32 well before t is.
        from_low = -torch.logaddexp(-torch.exp(mu / scale), torch.log(u * (high - low)))
        complement = (1.0 - u) * (high - low) - torch.expm1(-torch.exp((mu - 1.0) / scale))
        neg_log = torch.where(complement < 0.5, -torch.log1p(-complement), from_low)
        return mu - scale * torch.log(neg_log)


@dataclass(frozen=True)
class Cauchy(TimeDensityConfig):
    """The slope of an arctan curve, refitted to the training losses (mini CDCD).

    It starts with its midpoint at `midpoint` and a half-width `scale`, in norms of a clean state.
    """

    processes: ClassVar = (GaussianProcess,)

    midpoint: float = 0.43
    scale: float = 0.2
    uniform_mix: float = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, midpoint=(1e-6, None), scale=(1e-6, None), uniform_mix=(0.0, 0.99))


@builds(Cauchy)
class CauchyDensity(CurveDensity):
    """The entropy curve L(t) = o + h (A(t) - A(0)) / (A(1) - A(0)) with A = arctan((t - mu) / b), mini CDCD's warp.

    So o and h are losses at the ends, independent of mu and b, which are in units of the first b: the fit is then well
    conditioned for any range of noise.
    """

    def __init__(self, mu: float, scale: float, height: float, uniform_mix: float = 0.1, rate: float = 0.01) -> None:
        super().__init__((mu / scale, 0.0, math.log(height), 0.0), uniform_mix, rate, unit=scale)

    @classmethod
    def from_config(cls, part: Cauchy, *, codec: TableCodec, process: GaussianProcess, **context: Any) -> CauchyDensity:
        """The curve in the t of the process."""
        # On the CPU, because the numbers are needed where a model is built on the meta device.
        sigma = torch.tensor((part.midpoint, part.midpoint + part.scale), device="cpu") * codec.norm
        mu, upper = process.schedule.time(sigma).tolist()
        return cls(mu, upper - mu, math.log(codec.vocab_size), part.uniform_mix)

    def _standard_curve(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        first, last = self._ends(mu, scale)
        return (first - torch.atan2(scale, t - mu)) / (first - last)

    def _slope(self, t: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        first, last = self._ends(mu, scale)
        return scale / ((first - last) * (scale**2 + (t - mu) ** 2))

    def _inverse(self, u: Tensor, mu: Tensor, scale: Tensor) -> Tensor:
        return mu + scale / torch.tan(torch.lerp(*self._ends(mu, scale), u))

    @staticmethod
    def _ends(mu: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """pi / 2 - A at t = 0 and t = 1: small where A would be rounded to pi / 2."""
        return torch.atan2(scale, -mu), torch.atan2(scale, 1.0 - mu)
