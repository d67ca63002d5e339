"""Schedules of discrete noise: the probability alpha(t) that a token is still clean. t = 0 is clean, t = 1 is noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from ..core.registry import Part, check_bounds
from ..core.types import Values


class AlphaSchedule(Part, ABC):
    """Survival probability alpha(t) of a token under an absorbing or uniform process."""

    @abstractmethod
    def alpha(self, t: Values) -> Values:
        """Probability that a token is still clean at t."""

    @abstractmethod
    def mask_prob(self, t: Values) -> Values:
        """1 - alpha, precise where it is small."""

    @abstractmethod
    def time(self, alpha: Values) -> Values:
        """The t in [0, 1] at which the survival probability is `alpha`."""

    @abstractmethod
    def loss_weight(self, t: Values) -> Values:
        """-alpha'(t) / (1 - alpha(t)), the weight of the masked bound (MDLM, eq. 10)."""


@dataclass(frozen=True)
class Linear(AlphaSchedule):
    """alpha = 1 - t (MDLM)."""

    def alpha(self, t: Values) -> Values:
        return 1.0 - t

    def mask_prob(self, t: Values) -> Values:
        return t

    def time(self, alpha: Values) -> Values:
        return (1.0 - alpha).clamp(0.0, 1.0)

    def loss_weight(self, t: Values) -> Values:
        return 1.0 / t


@dataclass(frozen=True)
class LogLinear(AlphaSchedule):
    """alpha = 1 - (1 - eps) t: a fraction `eps` of the tokens survives at t = 1 (SEDD, section 5.1)."""

    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_bounds(self, eps=(0.0, 0.99))

    def alpha(self, t: Values) -> Values:
        return 1.0 - self.mask_prob(t)

    def mask_prob(self, t: Values) -> Values:
        return (1.0 - self.eps) * t

    def time(self, alpha: Values) -> Values:
        return ((1.0 - alpha) / (1.0 - self.eps)).clamp(0.0, 1.0)

    def loss_weight(self, t: Values) -> Values:
        return 1.0 / t


@dataclass(frozen=True)
class CosineAlpha(AlphaSchedule, name="cosine"):
    """alpha = 1 - cos(pi (1 - t) / 2): more masks than t, so that sampling reveals few at first (MD4, table 1)."""

    def alpha(self, t: Values) -> Values:
        """Probability that a token is still clean at t: exactly 1 at t = 0, and not rounded to 0 before t = 1."""
        angle = 0.5 * math.pi * (1.0 - t)
        return torch.where(t < 0.5, 1.0 - torch.cos(angle), 2.0 * torch.sin(0.5 * angle) ** 2)

    def mask_prob(self, t: Values) -> Values:
        return torch.sin(0.5 * math.pi * t)

    def time(self, alpha: Values) -> Values:
        return 1.0 - torch.acos((1.0 - alpha).clamp(0.0, 1.0)) * (2.0 / math.pi)

    def loss_weight(self, t: Values) -> Values:
        """(pi / 2) cot(pi t / 2), as a ratio of sines, which are precise near both ends."""
        return 0.5 * math.pi * torch.sin(0.5 * math.pi * (1.0 - t)) / torch.sin(0.5 * math.pi * t)


@dataclass(frozen=True)
class Geometric(AlphaSchedule):
    """alpha = exp(-sigma), sigma = sigma_min ((sigma_max / sigma_min)^t - 1): geometric noise (SEDD, section 5.1).

    The paper's sigma is larger by `sigma_min`, which leaves that much noise at t = 0; here t = 0 is clean.
    """

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        check_bounds(self, sigma_min=(1e-9, None), sigma_max=(self.sigma_min * 1.001, None))

    def _sigma(self, t: Values) -> Values:
        return self.sigma_min * torch.expm1(t * math.log(self.sigma_max / self.sigma_min))

    def alpha(self, t: Values) -> Values:
        return torch.exp(-self._sigma(t))

    def mask_prob(self, t: Values) -> Values:
        return -torch.expm1(-self._sigma(t))

    def time(self, alpha: Values) -> Values:
        log_ratio = math.log(self.sigma_max / self.sigma_min)
        return (torch.log1p(-torch.log(alpha) / self.sigma_min) / log_ratio).clamp(0.0, 1.0)

    def loss_weight(self, t: Values) -> Values:
        """sigma'(t) / (exp(sigma) - 1)."""
        sigma = self._sigma(t)
        return (sigma + self.sigma_min) * math.log(self.sigma_max / self.sigma_min) / torch.expm1(sigma)
