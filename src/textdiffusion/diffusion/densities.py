"""Time densities: which noise levels training sees. A density of t in [0, 1]; the schedule says what t means.

A density is separate from the process. It knows its own probability, so that a bound can be estimated under it, and its
quantiles are a sampling grid of equal information per step. What it learns is saved with the model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..core.randomness import Rng
from ..core.registry import Part, builds, check_bounds
from ..core.types import PerRow, Times, Values


class TimeDensityConfig(Part, ABC):
    """Settings of a time density. `processes`: the processes it works with (none listed: all)."""

    processes: ClassVar[tuple[type[nn.Module], ...]] = ()


class TimeDensity(nn.Module, ABC):
    """A distribution of t in [0, 1]. One that learns also has a loss to fit, and draws from a moving average."""

    @abstractmethod
    def icdf(self, u: Values) -> Values:
        """The t whose cumulative probability is u."""

    @abstractmethod
    def log_prob(self, t: Values) -> Values:
        """Log density of t, in nats."""

    def sampling_times(self, u: Values) -> Values:
        """Times for sampling, from 0 to 1 as u goes from 0 to 1."""
        return u

    def fitting_loss(self, t: Times, nats: PerRow) -> PerRow:
        """What training adds to the loss, from the cross-entropy per token at each t (zero: nothing is learned)."""
        return torch.zeros_like(nats)

    def predicted_loss(self, t: Values) -> Values | None:
        """The learned curve of cross-entropy, in nats per token (None: no such curve is learned)."""
        return None

    def update_average(self) -> None:
        """Moves the draws towards the fit. Call once per training step, however the batch is split."""


def low_discrepancy(rng: Rng, total: int) -> PerRow:
    """Uniforms in (0, 1), one per row, that cover the interval evenly over the global batch of `total` rows.

    u_i = (u_0 + i / total) mod 1 with one shared u_0 (Kingma et al. 2021, appendix I.1).
    """
    u = (rng.shared_uniform() + (rng.row_ids % total) / total) % 1.0
    return u.clamp(2.0**-24, 1.0 - 2.0**-24)


@dataclass(frozen=True)
class Uniform(TimeDensityConfig):
    """t is uniform from `low` to `high`. Training sees no other t, and its figures are then of these t alone."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, low=(0.0, 0.99), high=(self.low + 0.01, 1.0))


@builds(Uniform)
class UniformDensity(TimeDensity):
    """t uniform in [low, high]. A bound estimated from these draws alone needs all of [0, 1]."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def icdf(self, u: Values) -> Values:
        return self.low + (self.high - self.low) * u

    def log_prob(self, t: Values) -> Values:
        inside = (t - 0.5 * (self.low + self.high)).abs() <= 0.5 * (self.high - self.low) + 1e-6  # draws are rounded
        return torch.where(inside, -math.log(self.high - self.low), -torch.inf)
