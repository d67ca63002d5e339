"""Samplers of tokens that correct what they have drawn, at the price of more noise or of more calls."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.model import Denoiser
from ..diffusion.uniform import UniformProcess
from .ancestral import Ancestral, StepContext


class PredictorCorrector(Ancestral):
    """Ancestral steps in which, with the chance 1 - kappa, a place is noised to s afresh from a draw of its token.

    (Psi-samplers: Deschenaux et al. 2026.) Both ways lead to the law that the process has at s, so with an ideal
    denoiser the law is the data's, but for what drawing places together costs: of the order of 1 - kappa. For masks it
    is `Remasking` with sigma = (1 - kappa) (1 - alpha(s)).
    """

    def __init__(self, kappa: float = 0.95) -> None:
        self.kappa = kappa

    def step(self, turn: StepContext) -> Int[Tensor, "b l"]:
        """The state at s."""
        process, x, rng = turn.stream.process, turn.stream.x, turn.rng
        afresh = rng.fork("afresh").uniform(x.shape[1]) >= self.kappa
        drawn = afresh & process.is_noisy(x)
        clean = rng.fork("clean").categorical_at(drawn, turn.prediction.logits[drawn].softmax(-1))
        noised = process.add_noise(x.masked_scatter(drawn, clean), turn.s, rng=rng.fork("noise"))
        return torch.where(afresh, noised, super().step(turn))


class Gibbs(Ancestral):
    """Ancestral steps of uniform noise, each followed by `corrections` calls that draw `places` afresh given the rest.

    A place is drawn from p(x_s there | x_s elsewhere) = alpha pi + (1 - alpha) / K, where pi is what the others say of
    its token. With one place a call that keeps the law of the process at s exactly, and repairs what steps have lost.
    """

    processes: ClassVar[tuple[type, ...]] = (UniformProcess,)

    def __init__(self, corrections: int = 1, places: int = 1) -> None:
        self.corrections, self.positions = corrections, places

    def step(self, turn: StepContext) -> Int[Tensor, "b l"]:
        """The state at s; none is corrected at t = 0, where nothing could change."""
        stream, s = turn.stream, turn.s
        x = stream.apply_condition(super().step(turn))
        for i in range(self.corrections if float(s[0]) > 0.0 else 0):
            x = self.corrected(stream.process, stream.denoiser, x, s, batch=stream.batch, rng=turn.rng.fork(i))
        return x

    def corrected(
        self,
        process: UniformProcess,
        denoiser: Denoiser,
        x: Int[Tensor, "b l"],
        s: Float[Tensor, " b"],
        *,
        batch: Batch,
        rng: Rng,
    ) -> Int[Tensor, "b l"]:
        """The state after one call."""
        chosen = rng.fork("place").random_subset(batch.target_mask, self.positions)
        pi = process.leave_one_out(x, denoiser(x, s, batch=batch), s).logits[chosen].softmax(-1)
        alpha = process.schedule.alpha(s)[:, None].expand(x.shape)[chosen][:, None]
        token = rng.fork("token").categorical_at(
            chosen, torch.lerp(torch.full_like(pi, 1.0 / process.vocab_size), pi, alpha)
        )
        return x.masked_scatter(chosen, token)
