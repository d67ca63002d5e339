"""Heun's method: two network calls a step, for an error of second order."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.prediction import Prediction
from .gaussian import GaussianSampler, GaussianState


class Heun(GaussianSampler):
    """Steps of dx / dsigma = (x - x0) / sigma with the mean of the slopes at both ends (Karras et al. 2022, sec. 3).

    The second slope is taken where an Euler step leads. With churn it is algorithm 2 of that paper.
    """

    def step(self, walk: GaussianState, number: int, prediction: Prediction, *, rng: Rng) -> Float[Tensor, "b l d"]:
        """The state at the next noise level."""
        x, s = walk.x, walk.time_at(number + 1)
        now, then = walk.process.sigma_over(walk.t, x), walk.process.sigma_over(s, x)
        slope = (x - walk.target(prediction, x).mean) / now
        guess = walk.apply_condition(x + (then - now) * slope)
        ahead = (guess - walk.target(walk.predict(guess, s), guess).mean) / then
        return x + 0.5 * (then - now) * (slope + ahead)
