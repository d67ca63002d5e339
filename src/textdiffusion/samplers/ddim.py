"""DDIM, ancestral (DDPM) and renoising samplers of Gaussian processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import NoiseTimes, Sigma, Vectors
from ..diffusion.prediction import Prediction
from .gaussian import ChurnSampler, GaussianState
from .projections import NoProjection, Projection


@dataclass(frozen=True, kw_only=True)
class DDIM(ChurnSampler):
    """DDIM (eta = 0) to ancestral sampling (eta = 1), of first order, with one network call per step.

    Song et al. (2020), eq. 12 and 16; the robust default for Gaussian processes. Samples the data distribution in the
    limit of many steps, if the denoiser is ideal: eta = 0 is the Euler method for the probability-flow ODE, eta = 1 is
    DDPM. `max_noise_std` truncates the noise of a step to this many standard deviations (0: not at all).

    `renoise` draws x_s from q(x_s | x_0 = the prediction), as simple-diffusion-lm, SSD-LM and TESS do: all noise is
    new. It corrects more errors but favours likely text, and does not sample the data distribution in any limit. With
    `projection` (none, greedy, sample) the state moves towards single tokens instead of the predicted mean.

    `time_offset` moves the state this many steps further than the next step assumes (asymmetric time intervals: Analog
    Bits, algorithm 2, td) and keeps its size in the variance-preserving frame.
    """

    eta: float = 0.0
    renoise: bool = False
    time_offset: float = 0.0
    projection: Projection = NoProjection()
    max_noise_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, 1.0), time_offset=(0.0, None), max_noise_std=(0.0, None))
        if self.renoise and self.eta:
            raise UserError(f"sampler.eta={self.eta:g} has no effect with renoise, which keeps no noise; set eta=0.")
        if self.max_noise_std and not (self.eta or self.renoise):
            raise UserError("sampler.max_noise_std has no effect without noise; set sampler.eta or sampler.renoise.")

    def step(self, state: GaussianState, i: int, prediction: Prediction, *, rng: Rng) -> Vectors:
        prediction = state.apply_temperature(self.projection(prediction, rng=rng), state.x)
        s, reached = state.time(i + 1), state.time(i + 1, self.time_offset)
        to = reached[:, None].expand_as(state.t) if state.t.ndim == 2 else reached
        noise = {"eta": self.eta, "renoise": self.renoise, "limit": self.max_noise_std}
        xs = state.process.reverse(state.x, prediction, state.t, to, rng=rng, **noise)
        return xs * (self._scale(state, s) / self._scale(state, to)) if self.time_offset else xs

    @staticmethod
    def _scale(state: GaussianState, t: NoiseTimes) -> Sigma:
        """Root mean square of a noisy state's coordinates at t: the factor to the variance-preserving frame."""
        return torch.sqrt(state.process.sigma_over(t, state.x) ** 2 + state.model.codec.scale**2)
