"""The one-step family of Gaussian samplers, from DDIM over ancestral to renoising."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.prediction import Prediction
from .gaussian import GaussianSampler, GaussianState, Mode, Path, projected


class DDIM(GaussianSampler):
    """Each step moves the state to a lower noise level with one network call (specs: continuous 4.1).

    `eta` = 0 is DDIM, the Euler step of the probability-flow ODE; 1 is ancestral (DDPM). `renoise` noises each
    prediction afresh, as simple-diffusion-lm, SSD-LM and TESS do. It corrects more, but its law is not the data's, not
    even in the limit of many steps and an ideal denoiser: it favours what is likely. With `projection` the state
    moves towards a single token at each position, the likeliest or one drawn from the nucleus of `top_p`.

    The state is moved to a noise level `ahead` steps below the one that the next step takes it for (asymmetric time
    intervals: Analog Bits, algorithm 2, td). It keeps its size in the variance-preserving frame, where it is renamed.

    `truncate` cuts the noise of a step to so many standard deviations (0: not at all).
    """

    def __init__(
        self,
        eta: float = 0.0,
        renoise: bool = False,
        ahead: float = 0.0,
        projection: Mode = "none",
        top_p: float = 1.0,
        *,
        truncate: float = 0.0,
        path: Path | None = None,
    ) -> None:
        super().__init__(path)
        self.eta, self.renoise, self.time_offset = eta, renoise, ahead
        self.projection, self.top_p, self.truncate = projection, top_p, truncate

    def step(self, walk: GaussianState, number: int, prediction: Prediction, *, rng: Rng) -> Float[Tensor, "b l d"]:
        """The state at the next noise level."""
        goal = walk.target(projected(prediction, self.projection, self.top_p, rng=rng), walk.x)
        told, reached = walk.time_at(number + 1), walk.time_at(number + 1, self.time_offset)
        if walk.t.ndim == 2:
            reached = reached[:, None].expand_as(walk.t)
        xs = walk.process.reverse(
            walk.x, goal, walk.t, reached, rng=rng, eta=self.eta, renoise=self.renoise, limit=self.truncate
        )
        return xs * (self._size(walk, told) / self._size(walk, reached)) if self.time_offset else xs

    @staticmethod
    def _size(walk: GaussianState, t: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1"]:
        """Root mean square of the coordinates of a noisy state: what it is divided by in the other frame."""
        return torch.sqrt(walk.process.sigma_over(t, walk.x) ** 2 + walk.model.codec.scale**2)
