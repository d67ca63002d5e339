"""Schedules of Gaussian noise: the noise level sigma(t). t = 0 has the least noise, t = 1 the most."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from ..core.registry import Part, build, builds, check_bounds
from ..core.types import Values


@runtime_checkable
class NoiseSchedule(Protocol):
    """sigma(t) of the variance-exploding frame x_t = x_0 + sigma(t) eps, in the units of the states.

    `num_levels`: training sees that many noise levels, evenly spaced in t (0: any t in [0, 1]).
    """

    @property
    def num_levels(self) -> int: ...

    def sigma(self, t: Values) -> Values: ...

    def time(self, sigma: Values) -> Values: ...


class SigmaSchedule(Part, ABC):
    """Settings of a noise schedule. `scaled` turns them into the schedule that runs."""

    @property
    def num_levels(self) -> int:
        """Number of noise levels that training sees, evenly spaced in t (0: any t in [0, 1])."""
        return 0

    @abstractmethod
    def scaled(self, norm: float, dim: int) -> NoiseSchedule:
        """The schedule for clean states with `dim` coordinates and this root mean square norm."""


@dataclass(frozen=True)
class SigmaRange(SigmaSchedule, ABC):
    """A schedule from `sigma_min` to `sigma_max`, which are in units of the norm of a clean state until `scaled`.

    It has no parameters, so it is both the settings and the schedule that runs.
    """

    sigma_min: float = 0.05
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        _check_range(self)

    def scaled(self, norm: float, dim: int) -> SigmaRange:
        return replace(self, sigma_min=self.sigma_min * norm, sigma_max=self.sigma_max * norm)

    @abstractmethod
    def sigma(self, t: Values) -> Values:
        """Noise level at t."""

    @abstractmethod
    def time(self, sigma: Values) -> Values:
        """The t of a noise level."""


def _check_range(part: SigmaRange | LearnedLogSigma) -> None:
    check_bounds(part, sigma_min=(1e-30, None), sigma_max=(part.sigma_min * 1.001, None))


@dataclass(frozen=True)
class LogSigma(SigmaRange):
    """ln sigma linear in t."""

    def sigma(self, t: Values) -> Values:
        return torch.exp(math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min))

    def time(self, sigma: Values) -> Values:
        return torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class LinearSigma(SigmaRange):
    """sigma linear in t (CDCD's time)."""

    def sigma(self, t: Values) -> Values:
        return self.sigma_min + t * (self.sigma_max - self.sigma_min)

    def time(self, sigma: Values) -> Values:
        return (sigma - self.sigma_min) / (self.sigma_max - self.sigma_min)


@dataclass(frozen=True)
class KarrasSigma(SigmaRange, name="karras"):
    """sigma^(1/rho) linear in t (EDM, eq. 5)."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, rho=(0.1, 100.0))

    def sigma(self, t: Values) -> Values:
        root_min, root_max = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (root_min + t * (root_max - root_min)) ** self.rho

    def time(self, sigma: Values) -> Values:
        root_min, root_max = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - root_min) / (root_max - root_min)


@dataclass(frozen=True)
class ClippedSigma(SigmaRange, ABC):
    """The sigma of a variance-preserving schedule, times `sigma_scale`, clipped to [sigma_min, sigma_max].

    A factor on sigma shifts ln sigma: Difformer's noise rescaling (section 3.4). It does not scale with the norm.
    """

    sigma_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, sigma_scale=(1e-6, None))

    def sigma(self, t: Values) -> Values:
        return self.sigma_scale * self._sigma(t, self.sigma_min / self.sigma_scale, self.sigma_max / self.sigma_scale)

    def time(self, sigma: Values) -> Values:
        """The t of a noise level, clipped to [0, 1]."""
        return self._time(sigma / self.sigma_scale)

    @abstractmethod
    def _sigma(self, t: Values, low: float, high: float) -> Values:
        """The paper's sigma, clipped to [low, high]."""

    @abstractmethod
    def _time(self, sigma: Values) -> Values:
        """The t of the paper's sigma, clipped to [0, 1]."""


@dataclass(frozen=True)
class CosineSigma(ClippedSigma, name="cosine"):
    """alpha-bar = cos^2(pi (t + s) / (2 (1 + s))), so sigma is the tangent (Nichol & Dhariwal 2021, eq. 17).

    `s` sets how much noise t = 0 has.
    """

    s: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, s=(1e-6, 1.0))

    def _sigma(self, t: Values, low: float, high: float) -> Values:
        angle = (t + self.s) / (1.0 + self.s) * (0.5 * math.pi)
        # Clipped before the tangent: a float32 angle that is rounded past a right angle has a negative one.
        return torch.tan(angle.clamp(math.atan(low), math.atan(high)))

    def _time(self, sigma: Values) -> Values:
        return (torch.atan(sigma) * (2.0 / math.pi) * (1.0 + self.s) - self.s).clamp(0.0, 1.0)


@dataclass(frozen=True)
class SqrtSigma(ClippedSigma, name="sqrt"):
    """alpha-bar = 1 - sqrt(t + s) (Diffusion-LM, section 4.1). Near t = 1 it would be below 0: pure noise."""

    s: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, s=(1e-6, 1.0))

    def _sigma(self, t: Values, low: float, high: float) -> Values:
        # Clipped below 1, so that the slope beyond is 0 and not NaN.
        noise_fraction = torch.sqrt(t + self.s).clamp(max=1.0 - 2.0**-24)
        return torch.sqrt(noise_fraction / (1.0 - noise_fraction)).clamp(low, high)

    def _time(self, sigma: Values) -> Values:
        noise_fraction = sigma**2 / (1.0 + sigma**2)
        return (noise_fraction**2 - self.s).clamp(0.0, 1.0)


@dataclass(frozen=True)
class LinearBeta(ClippedSigma):
    """alpha-bar = exp(-(beta_min t + (beta_max - beta_min) t^2 / 2)) (Song et al. 2021, eq. 33)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, beta_min=(1e-6, None), beta_max=(self.beta_min * 1.001, None))

    def _sigma(self, t: Values, low: float, high: float) -> Values:
        integral = self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2
        return torch.sqrt(torch.expm1(integral).clamp(low**2, high**2))

    def _time(self, sigma: Values) -> Values:
        integral, slope = torch.log1p(sigma**2), self.beta_max - self.beta_min
        return ((torch.sqrt(self.beta_min**2 + 2.0 * slope * integral) - self.beta_min) / slope).clamp(0.0, 1.0)


@dataclass(frozen=True)
class LearnedLogSigma(SigmaSchedule):
    """ln sigma linear in t between two learned ends, which start at `sigma_min` and `sigma_max` norms of a clean state.

    Only the objective GaussianELBO can learn them.
    """

    sigma_min: float = 0.05
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        _check_range(self)

    def scaled(self, norm: float, dim: int) -> NoiseSchedule:
        return build(replace(self, sigma_min=self.sigma_min * norm, sigma_max=self.sigma_max * norm))


@builds(LearnedLogSigma)
class LearnedLogSigmaSchedule(nn.Module):
    """ln sigma linear in t between learned ends (Plaid, section 4.2)."""

    num_levels: ClassVar[int] = 0

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        super().__init__()
        self.ends = nn.Parameter(torch.tensor((math.log(sigma_min), math.log(sigma_max))))

    def sigma(self, t: Values) -> Values:
        """Noise level at t."""
        return torch.exp(self.ends[0] + t * (self.ends[1] - self.ends[0]))

    def time(self, sigma: Values) -> Values:
        """The t of a noise level."""
        return (torch.log(sigma) - self.ends[0]) / (self.ends[1] - self.ends[0])
