"""Grids of noise levels: which levels the steps of a Gaussian sampler stand on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import UserError
from ..diffusion.model import DiffusionModel
from ..diffusion.sigma_schedules import KarrasSigma, LogSigma

GridName = Literal["trained", "edm", "log", "tuned"]

KNOTS = 129  # of a tuned grid
FILE = "grid.json"
"""A tuned grid in a run's folder."""


def grid(name: GridName, rho: float, model: DiffusionModel, shares: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The times at `shares` of the way from clean (0) to noise (1), both of which are at the ends of every grid.

    `trained`: quantiles of the density that training drew from; without a learned one, even steps of t. `edm`: even
    steps of sigma^(1 / rho) (Karras et al. 2022, eq. 5). `log`: even steps of ln sigma. `tuned`: what `tuned_times`
    made of the run's measured losses. Raises UserError where the run has none.
    """
    if name == "trained":
        return model.time_density.sampling_times(shares)
    if name == "tuned":
        if model.tuned is None:
            raise UserError("This run has no tuned grid yet; `textdiffusion tune RUN` measures one.")
        return _interpolated(model.tuned.to(shares), shares)
    low, high = model.process.sigma(shares.new_tensor((0.0, 1.0))).tolist()
    levels = KarrasSigma(low, high, rho) if name == "edm" else LogSigma(low, high)
    times = model.process.schedule.time(levels.sigma(shares)).clamp(0.0, 1.0)
    return torch.where(shares >= 1.0, 1.0, torch.where(shares <= 0.0, 0.0, times))


def tuned_times(
    log_sigma: Float[Tensor, " n"], t: Float[Tensor, " n"], nats: Float[Tensor, " n"], even: float = 0.1
) -> Float[Tensor, " k"]:
    """The times at KNOTS even shares of the way on which cross-entropy rises evenly, from its values at noise levels.

    All three rise with the noise, from t = 0 to t = 1. The curve is made to rise by pooling neighbours that fall
    (isotonic regression); a share `even` of the steps is even in ln sigma, so that no level lies far from all steps.
    """
    rise, span = _isotonic(nats.double()), log_sigma.double() - log_sigma[0].double()
    rise = rise - rise[0]
    way = (1.0 - even) * rise / rise[-1].clamp(min=1e-9) + even * span / span[-1]
    shares = torch.linspace(0.0, 1.0, KNOTS, dtype=way.dtype)
    i = torch.searchsorted(way, shares).clamp(1, len(way) - 1)
    part = ((shares - way[i - 1]) / (way[i] - way[i - 1]).clamp(min=1e-12)).clamp(0.0, 1.0)
    times = torch.lerp(t.double()[i - 1], t.double()[i], part)
    times[0], times[-1] = 0.0, 1.0
    return times.float()


def save_grid(times: Float[Tensor, " k"], path: Path) -> None:
    """Writes a tuned grid."""
    path.write_text(json.dumps({"t": [round(t, 6) for t in times.tolist()]}) + "\n", encoding="utf-8")


def load_grid(path: Path) -> Float[Tensor, " k"] | None:
    """Reads a tuned grid (None: there is no such file). Raises UserError where it is damaged."""
    if not path.is_file():
        return None
    try:
        times = torch.tensor(json.loads(path.read_text(encoding="utf-8"))["t"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError):
        times = torch.zeros(0)
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or times[-1] != 1 or bool((times.diff() < 0).any()):
        raise UserError(
            f"{path} is no tuned grid: its times must rise from 0 to 1. `textdiffusion tune` writes it anew."
        )
    return times


def _interpolated(knots: Float[Tensor, " k"], shares: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    at = shares * (len(knots) - 1)
    i = at.long().clamp(0, len(knots) - 2)
    return torch.lerp(knots[i], knots[i + 1], at - i)


def _isotonic(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The nearest sequence that never falls, in squares (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    return torch.cat([values.new_full((count,), mean) for mean, count in pools])
