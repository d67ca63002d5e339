"""Noise densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import UserError
from .base import DensityPart, check_bounds, expect

if TYPE_CHECKING:
    from torch import nn

    from ..diffusion.codecs import Codec


@dataclass(frozen=True)
class Uniform(DensityPart):
    """All t alike, or all from `low` to `high`, and training sees no other (its figures are then of these alone)."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, low=(0.0, 0.99), high=(self.low + 0.01, 1.0))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.densities import UniformDensity

        return UniformDensity(self.low, self.high)


@dataclass(frozen=True)
class Gumbel(DensityPart):
    """The slope of a Gumbel curve in ln sigma, refitted to the training losses.

    It starts where a token without context loses about half of its information: steepest at `half` norms of a clean
    state.
    """

    midpoint: float = 0.43
    scale: float = 0.46
    uniform_mix: float = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, midpoint=(1e-6, None), scale=(1e-3, None), uniform_mix=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        import math

        from ..diffusion.codecs import TableCodec
        from ..diffusion.densities import GumbelDensity
        from ..diffusion.gaussian import GaussianProcess
        from ..diffusion.schedules import LogSigma

        codec = expect(self, codec, TableCodec)
        schedule = expect(self, process, GaussianProcess).schedule
        if not isinstance(schedule, LogSigma):
            raise UserError(
                "time_density.kind=gumbel is a curve in ln sigma and needs process.schedule=log_sigma; "
                "Cauchy, PiecewiseLinear and Uniform go with every schedule."
            )
        span = math.log(schedule.high / schedule.low)
        mu = math.log(self.midpoint * codec.norm / schedule.low) / span
        return GumbelDensity(mu, self.scale / span, math.log(codec.vocab_size), self.uniform_mix)


@dataclass(frozen=True)
class Cauchy(DensityPart):
    """The slope of an arctan curve, refitted to the training losses (mini CDCD).

    It starts at a half-way point `half` and a half-width `scale`, in norms of a clean state.
    """

    midpoint: float = 0.43
    scale: float = 0.2
    uniform_mix: float = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, midpoint=(1e-6, None), scale=(1e-6, None), uniform_mix=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        import math

        import torch

        from ..diffusion.codecs import TableCodec
        from ..diffusion.densities import CauchyDensity
        from ..diffusion.gaussian import GaussianProcess

        codec = expect(self, codec, TableCodec)
        schedule = expect(self, process, GaussianProcess).schedule
        # In numbers, as a configuration may be built on the meta device.
        sigma = torch.tensor((self.midpoint, self.midpoint + self.scale), device="cpu") * codec.norm
        half, beyond = schedule.time(sigma).tolist()
        return CauchyDensity(half, beyond - half, math.log(codec.vocab_size), self.uniform_mix)


@dataclass(frozen=True)
class TimeWarp(DensityPart):
    """CDCD's time warping."""

    bins: int = 100
    uniform_mix: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self, bins=(1, None), uniform_mix=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.densities import TimeWarpDensity
        from ..diffusion.gaussian import GaussianProcess

        expect(self, process, GaussianProcess)  # objectives of other processes fit no density
        return TimeWarpDensity(self.bins, self.uniform_mix)


@dataclass(frozen=True)
class MinVariance(DensityPart):
    """The draws under which the training bound varies least, learned in `bins` of t; for the objective PlaidBound."""

    bins: int = 100
    uniform_mix: float = 0.1

    def __post_init__(self) -> None:
        check_bounds(self, bins=(1, None), uniform_mix=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.densities import MinVarianceDensity

        return MinVarianceDensity(self.bins, self.uniform_mix)


@dataclass(frozen=True)
class LossSecondMoment(DensityPart):
    """Draws in proportion to the loss, in `bins` of t; for objectives that weight them by importance (DiffusionLM)."""

    bins: int = 100
    uniform_mix: float = 1e-3

    def __post_init__(self) -> None:
        check_bounds(self, bins=(1, None), uniform_mix=(1e-6, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.densities import LossSecondMomentDensity
        from ..diffusion.gaussian import GaussianProcess

        grid = expect(self, process, GaussianProcess).num_levels
        if grid % self.bins:  # a noise level is in one bin
            raise UserError(f"time_density.bins is {self.bins}; it must divide the {grid} noise levels of the process.")
        return LossSecondMomentDensity(self.bins, self.uniform_mix)
