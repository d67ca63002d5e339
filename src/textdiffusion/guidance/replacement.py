"""Given tokens for models that were not trained with conditioning masks."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import Denoiser, DiffusionModel
from ..diffusion.prediction import Prediction, one_hot_logits
from ..diffusion.process import TokenNoiseProcess
from ..samplers.base import Request, WrappedDenoiser


class Replacement:
    """Replacement: at the positions `known` of a batch, predictions are the given token, and states its noised copies.

    So a step sees of the given text only what its noise leaves, and the rest fits it less well than it should. With
    `jumps` each step of the sampler is followed by so many rounds in which noise of `length` steps is put on again
    and taken off, under other noise of the given tokens (RePaint, Lugmayr et al. 2022, algorithm 1). For an ideal
    denoiser and small steps the law tends to the law given the tokens as jumps grow. A jump costs `length` calls.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess, TokenNoiseProcess)

    def __init__(self, model: DiffusionModel, jumps: int = 0, length: int = 1) -> None:
        self.codec, self.process, self.n_resample, self.jump_length = model.codec, model.process, jumps, length

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions that are certain of the given tokens."""
        self.times: list[Float[Tensor, " 1"]] = []  # the last noise levels that the sampler has stepped to

        def knowing(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            assert batch.replace_mask is not None
            logits = prediction.logits
            known = torch.where(batch.replace_mask[..., None], one_hot_logits(batch.tokens, logits), logits)
            self.latest = prediction.with_logits(known, batch.replace_mask)
            return self.latest

        self.denoiser = WrappedDenoiser(denoiser, knowing)
        return self.denoiser

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """The given tokens at the noise level s; then the jumps."""
        xs = self._replaced(xs, s, batch, rng)
        self.times = [*(self.times or [torch.ones_like(s[:1])])[-self.jump_length :], s[:1]]  # the same for all rows
        times = [t.expand(len(xs)) for t in self.times]
        for jump in range(self.n_resample):
            draws, t = rng.fork("jump").fork(jump), times[0]
            xs = self._replaced(self.process.forward_step(xs, s, t, rng=draws.fork("noise")), t, batch, draws)
            for hop, (high, low) in enumerate(pairwise(times)):
                draw, estimate = draws.fork(hop), self.latest.mean if self.denoiser.self_conditioning else None
                prediction = self.denoiser(xs, high, batch=batch, self_cond=estimate)
                xs = self._replaced(self.process.reverse(xs, prediction, high, low, rng=draw), low, batch, draw)
        return xs

    def _replaced(self, x: Tensor, t: Float[Tensor, " b"], batch: Batch, rng: Rng) -> Tensor:
        assert batch.replace_mask is not None
        noisy = self.process.add_noise(self.codec.encode(batch.tokens), t, rng=rng.fork("given"))
        return torch.where(batch.replace_mask.view(*batch.replace_mask.shape, *(1,) * (x.ndim - 2)), noisy, x)
