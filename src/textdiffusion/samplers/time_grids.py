"""Time grids: the noise levels that a Gaussian sampler steps through."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import MissingFile, UserError
from ..core.files import write_text
from ..core.reading import read_object
from ..core.registry import Part, check_bounds
from ..core.seals import seal, unseal
from ..diffusion.model import DiffusionModel
from .base import Request

Fractions = Float[Tensor, "*b"]
TimeCurve = Callable[[Fractions], Fractions]
"""Times at fractions of the steps."""
Curve = Float[Tensor, " n"]

KNOTS = 129
"""Times of a tuned grid."""

FILE = "grid.json"
"""A tuned grid in a run's folder."""


class TimeGrid(Part, ABC):
    """How the steps of a Gaussian sampler are spread over the noise levels."""

    @abstractmethod
    def curve(self, model: DiffusionModel) -> TimeCurve:
        """The times at fractions of the steps, from clean (0, where t = 0) to noise (1, where t = 1).

        What the host must read of the model is read here, once: the curve itself never waits for the device.
        """


def tabulate(curve: TimeCurve, fractions: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The curve at each of `fractions` alone, so that a time does not depend on how many there are.

    Kernels round some functions of many numbers, such as powers, differently from the same function of one.
    """
    return torch.cat([curve(fraction) for fraction in fractions.split(1)])


def start_fraction(curve: TimeCurve, request: Request) -> float:
    """The fraction of the steps at which a curve reaches the request's `t_start`."""
    if request.t_start >= 1.0:
        return 1.0
    low, high, device = 0.0, 1.0, request.batch.tokens.device
    for _ in range(24):  # to the precision of float32
        middle = 0.5 * (low + high)
        below = float(curve(torch.tensor(middle, device=device))) < request.t_start
        low, high = (middle, high) if below else (low, middle)
    return high


@dataclass(frozen=True)
class Learned(TimeGrid):
    """Quantiles of the time density that training sampled from; equal steps of t if the density is uniform."""

    def curve(self, model: DiffusionModel) -> TimeCurve:
        return model.time_density.sampling_times


class SigmaGrid(TimeGrid, ABC):
    """A grid that is given by a formula for sigma, between the process's lowest and highest noise levels."""

    @abstractmethod
    def sigma(self, fractions: Fractions, sigma_min: float, sigma_max: float) -> Fractions:
        """The noise levels at `fractions`."""

    def curve(self, model: DiffusionModel) -> TimeCurve:
        ends = torch.tensor((0.0, 1.0), device=model.step.device)
        sigma_min, sigma_max = model.process.sigma(ends).tolist()

        def times(fractions: Fractions) -> Fractions:
            times = model.process.schedule.time(self.sigma(fractions, sigma_min, sigma_max)).clamp(0.0, 1.0)
            return torch.where(fractions >= 1.0, 1.0, torch.where(fractions <= 0.0, 0.0, times))

        return times


@dataclass(frozen=True)
class Karras(SigmaGrid):
    """Equal steps of sigma^(1 / rho) (Karras et al. 2022, eq. 5)."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_bounds(self, rho=(0.1, 100.0))

    def sigma(self, fractions: Fractions, sigma_min: float, sigma_max: float) -> Fractions:
        low, high = sigma_min ** (1 / self.rho), sigma_max ** (1 / self.rho)
        return (low + fractions * (high - low)) ** self.rho


@dataclass(frozen=True)
class Exponential(SigmaGrid):
    """Equal steps of ln sigma."""

    def sigma(self, fractions: Fractions, sigma_min: float, sigma_max: float) -> Fractions:
        return torch.exp(math.log(sigma_min) + fractions * math.log(sigma_max / sigma_min))


@dataclass(frozen=True)
class Tuned(TimeGrid):
    """The run's own grid, as measured by `textdiffusion tune` (see `tuned_times`)."""

    def curve(self, model: DiffusionModel) -> TimeCurve:
        if model.tuned is None:
            raise UserError("This run has no tuned grid yet; measure one with `textdiffusion tune RUN`.")
        knots = model.tuned.to(model.step.device)

        def times(fractions: Fractions) -> Fractions:
            position = fractions * (len(knots) - 1)
            i = position.long().clamp(0, len(knots) - 2)
            return torch.lerp(knots[i], knots[i + 1], position - i)

        return times


def tuned_times(log_sigma: Curve, t: Curve, nats: Curve, even: float = 0.1) -> Float[Tensor, " k"]:
    """The KNOTS times between which cross-entropy rises by equal amounts, from its values `nats` at n noise levels.

    All three inputs are ordered by noise, from t = 0 to t = 1. Isotonic regression makes the curve monotonic first. A
    fraction `even` of the steps is spread evenly in ln sigma, so that every noise level has a step nearby.
    """
    nats_rise, log_sigma_rise = _isotonic(nats.double()), log_sigma.double() - log_sigma[0].double()
    nats_rise = nats_rise - nats_rise[0]
    progress = (1.0 - even) * nats_rise / nats_rise[-1].clamp(min=1e-9) + even * log_sigma_rise / log_sigma_rise[-1]
    fractions = torch.linspace(0.0, 1.0, KNOTS, dtype=progress.dtype)
    i = torch.searchsorted(progress, fractions).clamp(1, len(progress) - 1)
    weight = ((fractions - progress[i - 1]) / (progress[i] - progress[i - 1]).clamp(min=1e-12)).clamp(0.0, 1.0)
    times = torch.lerp(t.double()[i - 1], t.double()[i], weight)
    times[0], times[-1] = 0.0, 1.0
    return times.float()


def save_grid(times: Float[Tensor, " k"], path: Path) -> None:
    """Writes a tuned grid."""
    write_text(path, json.dumps(seal({"t": [round(t, 6) for t in times.tolist()]})) + "\n")


def load_grid(path: Path) -> Float[Tensor, " k"] | None:
    """Reads a tuned grid (None: the file does not exist). Raises UserError if the file is damaged."""
    try:
        times = torch.tensor(unseal(read_object(path), str(path)).get("t"), dtype=torch.float32)
    except MissingFile:
        return None
    except (ValueError, TypeError, RuntimeError):
        times = torch.zeros(0)
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or times[-1] != 1 or bool((times.diff() < 0).any()):
        expected = "its times must rise from 0 to 1. Make one with textdiffusion tune."
        raise UserError(f"{path} is not a valid tuned grid: {expected}")
    return times


def _isotonic(values: Curve) -> Curve:
    """The closest non-decreasing sequence in squared error (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            previous_mean, previous_count = pools.pop()
            mean = (mean * count + previous_mean * previous_count) / (count + previous_count)
            count += previous_count
        pools.append((mean, count))
    return torch.cat([values.new_full((count,), mean) for mean, count in pools])
