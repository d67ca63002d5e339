"""DPM-Solver++(2M): second order from the prediction of the step before, at one network call a step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.prediction import Prediction
from .gaussian import GaussianSampler, GaussianState, Path


class DPMSolver(GaussianSampler):
    """The flow in ln sigma, its denoised state taken as a line through the last two (Lu et al. 2022, algorithm 2).

    Above 0, `eta` renews the noise on the way, so many times as fast as the reverse stochastic equation of ancestral
    sampling does: 1 is SDE-DPM-Solver++(2M). The first step is of first order.
    """

    def __init__(self, eta: float = 0.0, path: Path | None = None) -> None:
        super().__init__(path)
        self.eta = eta

    def step(self, walk: GaussianState, number: int, prediction: Prediction, *, rng: Rng) -> Float[Tensor, "b l d"]:
        """The state at the next noise level."""
        x, goal = walk.x, walk.target(prediction, walk.x).mean
        now, then = (walk.process.sigma_over(t, x) for t in (walk.t, walk.time_at(number + 1)))
        step = torch.log(now / then)
        share, line = -torch.expm1(-(1.0 + self.eta) * step), goal
        if walk.before is not None:
            earlier, since = walk.before
            last = torch.log(walk.process.sigma_over(since, x) / now)
            # Where a cut schedule stood still both predictions are of one noise level, and no line goes through them.
            line = goal + torch.where(last > 0, 0.5 * step / last, 0.0) * (goal - earlier)
        walk.before = goal, walk.t
        xs = (1.0 - share) * x + share * line
        if not self.eta:
            return xs
        return xs + then * torch.sqrt(-torch.expm1(-2.0 * self.eta * step)) * rng.normal(*x.shape[1:])
