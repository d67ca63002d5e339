"""The clamping trick: the predicted state is moved to the nearest clean one."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..batch import Batch
from ..networks.denoisers import Denoiser
from ..prediction import Prediction
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng


class Clamped(Prediction):
    """A prediction whose mean is moved to the nearest row of the table, where `where` holds; its tokens stay."""

    def __init__(self, prediction: Prediction, where: Tensor) -> None:
        assert prediction.table is not None, "a state of token ids has no mean"
        super().__init__(prediction.logits, prediction.table)
        self.before, self.where = prediction, where

    @property
    def mean(self) -> Float[Tensor, "b l d"]:
        mean, table = self.before.mean, self.before.table
        assert table is not None
        nearest = (mean @ table.T - 0.5 * table.square().sum(-1)).argmax(-1)
        return torch.where(self.where, table[nearest], mean)


class Rounding:
    """Rounds the denoised state to the nearest token's at every t up to `start` (Diffusion-LM, section 4.2).

    Late in sampling (a small `start`) it commits the model to words; from the start on (1) it costs diversity. It
    belongs outermost: guides that change logits make a prediction of their own.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, start: float = 1.0) -> None:
        self.start = start

    def wrap(self, denoiser: Denoiser) -> Denoiser:
        """Predictions of rounded states."""
        return _Rounded(denoiser, self.start)

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """Nothing."""
        return xs


class _Rounded:
    def __init__(self, denoiser: Denoiser, start: float) -> None:
        self.denoiser, self.start = denoiser, start
        self.time_free, self.self_conditioning = False, denoiser.self_conditioning

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction:
        late = (t <= self.start).view(len(xt), -1, 1)
        return Clamped(self.denoiser(xt, t, batch=batch, self_cond=self_cond), late)
