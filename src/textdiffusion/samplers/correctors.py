"""Samplers of token ids that can revise earlier tokens: PredictorCorrector and Gibbs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Times, Tokens
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction
from ..diffusion.uniform import UniformProcess
from .ancestral import Ancestral
from .token_state import TokenState


@dataclass(frozen=True, kw_only=True)
class PredictorCorrector(Ancestral):
    """Ancestral sampling in which each position is renoised with probability 1 - kappa (psi-samplers).

    Deschenaux et al. (2026). A renoised position draws x_s from q(x_s | x_0) for a draw of its own clean token, which
    lets the model correct earlier tokens. Both kinds of step lead to the same marginal at s, so an ideal denoiser
    samples the data distribution up to an error of order 1 - kappa from positions that are drawn together. For masks it
    equals `remdm` with sigma = (1 - kappa) (1 - alpha(s)).
    """

    kappa: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, kappa=(0.0, 1.0))

    def step(self, state: TokenState, prediction: Prediction, t: Times, s: Times, *, rng: Rng) -> Tokens:
        process, x = state.process, state.x
        renoised = rng.fork("afresh").uniform(x.shape[1]) >= self.kappa
        redrawn = renoised & process.is_noisy(x)
        if prediction.has_own_score and isinstance(process, UniformProcess):
            marginal = process.marginal(x, prediction, t, s)[redrawn]
            noisy = x.masked_scatter(redrawn, rng.fork("clean").categorical_at(redrawn, marginal))
        else:
            clean = rng.fork("clean").categorical_at(redrawn, prediction.logits[redrawn].softmax(-1))
            noisy = process.add_noise(x.masked_scatter(redrawn, clean), s, rng=rng.fork("noise"))
        return torch.where(renoised, noisy, super().step(state, prediction, t, s, rng=rng))


@dataclass(frozen=True, kw_only=True)
class Gibbs(Ancestral):
    """Ancestral sampling of uniform noise with Gibbs corrections after each step.

    Use it to repair the errors of few steps: each of the `corrections` calls redraws `positions` random positions from
    p(x_s here | x_s elsewhere) = alpha pi + (1 - alpha) / K, where pi is the leave-one-out prediction of the clean
    token and K the vocabulary size. With one position per call this leaves the marginal at s invariant, so an ideal
    denoiser samples the data distribution in the limit of many steps.
    """

    processes = (UniformProcess,)

    corrections: int = 1
    positions: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, corrections=(1, None), positions=(1, None))

    def step(self, state: TokenState, prediction: Prediction, t: Times, s: Times, *, rng: Rng) -> Tokens:
        """A draw of x_s. Nothing is corrected at s = 0, where no token can change."""
        x = state.apply_condition(super().step(state, prediction, t, s, rng=rng))
        for i in range(self.corrections if float(s[0]) > 0.0 else 0):
            x = self.correct(state.process, state.denoiser, x, s, batch=state.batch, rng=rng.fork(i))
        return x

    def correct(
        self, process: UniformProcess, denoiser: Denoiser, xs: Tokens, s: Times, *, batch: Batch, rng: Rng
    ) -> Tokens:
        """The state after one correction, which costs one network call."""
        chosen = rng.fork("place").random_subset(batch.target_mask, self.positions)
        prediction = denoiser(xs, s, batch=batch)
        if prediction.has_own_score:
            conditional = prediction.log_score(process.graph, xs, s[:, None].expand(xs.shape))[chosen].softmax(-1)
            return xs.masked_scatter(chosen, rng.fork("token").categorical_at(chosen, conditional))
        pi = process.leave_one_out(xs, prediction, s).logits[chosen].softmax(-1)
        alpha = process.schedule.alpha(s)[:, None].expand(xs.shape)[chosen][:, None]
        conditional = torch.lerp(torch.full_like(pi, 1.0 / process.vocab_size), pi, alpha)
        return xs.masked_scatter(chosen, rng.fork("token").categorical_at(chosen, conditional))
