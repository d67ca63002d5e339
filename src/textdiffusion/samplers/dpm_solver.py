"""DPM-Solver++(2M) for Gaussian processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Vectors
from ..diffusion.prediction import Prediction
from .gaussian import GaussianSampler, GaussianState


@dataclass(frozen=True, kw_only=True)
class DPMSolver(GaussianSampler):
    """DPM-Solver++(2M): second order from the last two predictions, with one network call per step.

    Lu et al. (2022), algorithm 2: the ODE in ln sigma, its clean state extrapolated linearly from the last two; the
    first step is of first order. Use it for few steps. With `eta` above 0 noise is renewed, eta times as fast as in
    ancestral sampling; 1 is SDE-DPM-Solver++(2M). Samples the data distribution in the limit of many steps, if the
    denoiser is ideal.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, None))

    def step(self, state: GaussianState, i: int, prediction: Prediction, *, rng: Rng) -> Vectors:
        x, x0 = state.x, state.apply_temperature(prediction, state.x).mean
        sigma_t, sigma_s = (state.process.sigma_over(t, x) for t in (state.t, state.time(i + 1)))
        h = torch.log(sigma_t / sigma_s)
        extrapolated = x0
        if state.previous is not None:
            previous_x0, previous_t = state.previous
            previous_h = torch.log(state.process.sigma_over(previous_t, x) / sigma_t)
            # A schedule cut to a range may stand still: two predictions at one noise level define no line.
            extrapolated = x0 + torch.where(previous_h > 0, 0.5 * h / previous_h, 0.0) * (x0 - previous_x0)
        state.previous = x0, state.t
        weight = -torch.expm1(-(1.0 + self.eta) * h)
        xs = (1.0 - weight) * x + weight * extrapolated
        if not self.eta:
            return xs
        return xs + sigma_s * torch.sqrt(-torch.expm1(-2.0 * self.eta * h)) * rng.normal(*x.shape[1:])
