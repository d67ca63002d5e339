"""Infilling with models that were trained without conditioning masks: replacement and RePaint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Times
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import Denoiser, DiffusionModel
from ..diffusion.prediction import Prediction, one_hot_logits
from ..diffusion.token_noise import TokenNoiseProcess
from ..samplers.base import Guide, Request, Run, WrappedDenoiser
from .base import GuideConfig


@dataclass(frozen=True)
class Repaint(GuideConfig):
    """Infills better with runs trained without conditioning masks: adds and removes noise again after each step.

    Each of the `n_resample` rounds per step adds the noise of `jump_length` steps and removes it again, which costs
    `jump_length` calls.
    """

    n_resample: int = 5
    jump_length: int = 1

    def __post_init__(self) -> None:
        check_bounds(self, n_resample=(1, None), jump_length=(1, None))

    def bind(self, run: Run) -> Guide:
        return Replacement(run.model, self.n_resample, self.jump_length)


class Replacement:
    """Keeps the tokens of `Batch.replace_mask`: predictions are these tokens, and states are their noisy copies.

    The model therefore sees only what the noise leaves of the known text, and the rest fits it less well than it
    should. With `n_resample` above 0 each step is followed by that many rounds that add the noise of `jump_length`
    steps and remove it again, with new noise on the known tokens (RePaint: Lugmayr et al. 2022, algorithm 1). For an
    ideal denoiser and small steps, samples approach the distribution given the tokens as `n_resample` grows.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess, TokenNoiseProcess)

    def __init__(self, model: DiffusionModel, n_resample: int = 0, jump_length: int = 1) -> None:
        self.codec, self.process = model.codec, model.process
        self.n_resample, self.jump_length = n_resample, jump_length

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        self.times: list[Float[Tensor, " 1"]] = []  # of the sampler's last steps
        self.t_start = request.t_start

        def replace_known(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            assert batch.replace_mask is not None
            logits = prediction.logits
            logits = torch.where(batch.replace_mask[..., None], one_hot_logits(batch.tokens, logits), logits)
            self.prediction = prediction.with_logits(logits, batch.replace_mask)
            return self.prediction

        self.denoiser = WrappedDenoiser(denoiser, replace_known)
        return self.denoiser

    def after_step(self, xs: Tensor, s: Times, *, batch: Batch, rng: Rng) -> Tensor:
        """The state with the known tokens at the noise level of s, after the rounds of resampling."""
        xs = self._replace(xs, s, batch, rng)
        self.times = [
            *(self.times or [torch.full_like(s[:1], self.t_start)])[-self.jump_length :],
            s[:1],
        ]  # the same for all rows
        times = [t.expand(len(xs)) for t in self.times]
        for i in range(self.n_resample):
            round_rng, t = rng.fork("jump").fork(i), times[0]
            xs = self._replace(self.process.forward_step(xs, s, t, rng=round_rng.fork("noise")), t, batch, round_rng)
            for j, (t, u) in enumerate(pairwise(times)):
                step_rng, self_cond = round_rng.fork(j), self._self_cond
                prediction = self.denoiser(xs, t, batch=batch, self_cond=self_cond)
                xs = self._replace(self.process.reverse(xs, prediction, t, u, rng=step_rng), u, batch, step_rng)
        return xs

    @property
    def _self_cond(self) -> Tensor | None:
        return self.prediction.mean if self.denoiser.self_conditioning else None

    def _replace(self, x: Tensor, t: Times, batch: Batch, rng: Rng) -> Tensor:
        assert batch.replace_mask is not None
        noisy = self.process.add_noise(self.codec.encode(batch.tokens), t, rng=rng.fork("given"))
        return torch.where(batch.replace_mask.view(*batch.replace_mask.shape, *(1,) * (x.ndim - 2)), noisy, x)
