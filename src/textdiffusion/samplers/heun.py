"""Heun's method for Gaussian processes."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.randomness import Rng
from ..core.types import Vectors
from ..diffusion.prediction import Prediction
from .gaussian import ChurnSampler, GaussianState


@dataclass(frozen=True, kw_only=True)
class Heun(ChurnSampler):
    """Heun's method for the probability-flow ODE (EDM): second order, with two network calls per step.

    Karras et al. (2022), algorithm 1; with `s_churn`, algorithm 2. Use it when many calls are affordable, for example
    as a reference; `dpm_solver` costs half as much. Samples the data distribution in the limit of many steps, if the
    denoiser is ideal.
    """

    def step(self, state: GaussianState, i: int, prediction: Prediction, *, rng: Rng) -> Vectors:
        x, s = state.x, state.time(i + 1)
        sigma_t, sigma_s = state.process.sigma_over(state.t, x), state.process.sigma_over(s, x)
        slope = (x - state.apply_temperature(prediction, x).mean) / sigma_t  # dx / dsigma
        euler = state.apply_condition(x + (sigma_s - sigma_t) * slope)
        end_slope = (euler - state.apply_temperature(state.predict(euler, s), euler).mean) / sigma_s
        return x + 0.5 * (sigma_s - sigma_t) * (slope + end_slope)
