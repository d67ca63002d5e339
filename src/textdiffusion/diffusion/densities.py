"""Time densities: which noise levels training sees. A density of t in [0, 1]; the schedule says what t means.

A density is separate from the process. It knows its own probability, so that a bound can be estimated under it, and its
quantiles are a sampling grid of equal information per step. What it learns is saved with the model.
"""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.randomness import Rng
from ..core.registry import Part, builds, check_bounds


class TimeDensityConfig(Part, ABC):
    """Settings of a time density. `processes`: the processes it works with (none listed: all)."""

    processes: ClassVar[tuple[type[nn.Module], ...]] = ()


@runtime_checkable
class TimeDensity(Protocol):
    """A distribution of t in [0, 1]."""

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


@dataclass(frozen=True)
class Uniform(TimeDensityConfig):
    """t is uniform from `low` to `high`. Training sees no other t, and its figures are then of these t alone."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, low=(0.0, 0.99), high=(self.low + 0.01, 1.0))


@builds(Uniform)
class UniformDensity(nn.Module):
    """t uniform in [low, high]. A bound estimated from these draws alone needs all of [0, 1]."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def icdf(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The t whose cumulative probability is u."""
        return self.low + (self.high - self.low) * u

    def sampling_times(self, u: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Equal steps of t over all of [0, 1], for sampling."""
        return u

    def log_prob(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Log density of t, in nats."""
        inside = (t - 0.5 * (self.low + self.high)).abs() <= 0.5 * (self.high - self.low) + 1e-6  # draws are rounded
        return torch.where(inside, -math.log(self.high - self.low), -torch.inf)

    def fitting_loss(self, t: Float[Tensor, " b"], nats: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Zero: nothing is learned."""
        return torch.zeros_like(nats)

    def predicted_loss(self, t: Float[Tensor, "*b"]) -> None:
        """None: no curve of cross-entropy is learned."""

    def update_average(self) -> None:
        """Does nothing: nothing is learned."""
