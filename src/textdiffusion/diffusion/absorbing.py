"""The absorbing (masked) process: a token stays or becomes the mask, independently at every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import builds
from ..core.types import Mask, NoiseTimes, PerPosition, Tokens, Values
from .alpha_schedules import AlphaSchedule, Linear
from .codecs import TokenCodec
from .densities import low_discrepancy
from .prediction import Prediction
from .process import KLAndNLL, ProcessConfig, TokenProcess
from .ratios import AbsorbingGraph, ReverseStep

TimeInput = Literal["mask_prob", "sigma"]


@dataclass(frozen=True)
class Absorbing(ProcessConfig):
    """Tokens become masks.

    `time_input` is the value that a network with a time input receives: the mask probability 1 - alpha, or the total
    noise sigma = -ln(alpha), which needs a schedule under which some tokens survive at t = 1 (SEDD).
    """

    codecs: ClassVar = (TokenCodec,)

    schedule: AlphaSchedule = Linear()
    time_input: TimeInput = "mask_prob"

    def __post_init__(self) -> None:
        if self.time_input == "sigma" and not float(self.schedule.alpha(torch.ones((), device="cpu"))) > 0.0:
            infinite = f"process.time_input=sigma is infinite at t = 1 of schedule={self.schedule.kind}"
            raise UserError(f"{infinite}; use log_linear or geometric.")


@builds(Absorbing)
class AbsorbingProcess(TokenProcess):
    """q(x_t | x_0): a token survives with probability alpha(t), else it is the mask (D3PM, SEDD, MDLM).

    `mask`, the id of the mask, is `vocab_size`.
    """

    def __init__(self, vocab_size: int, schedule: AlphaSchedule, time_input: TimeInput = "mask_prob") -> None:
        super().__init__()
        self.time_input = time_input
        self.vocab_size, self.num_states, self.mask, self.schedule = vocab_size, vocab_size + 1, vocab_size, schedule
        self.graph = AbsorbingGraph(vocab_size, schedule)

    def time_conditioning(self, t: Values) -> Values:
        return -torch.log(self.schedule.alpha(t)) if self.time_input == "sigma" else self.schedule.mask_prob(t)

    def block_starts(self, batch: Batch) -> Int[Tensor, "1 1"]:
        """The position where a group with one noise level begins: a whole row has one level."""
        return torch.zeros(1, 1, dtype=torch.long, device=batch.tokens.device)

    def stratified_uniforms(self, batch: Batch, *, rng: Rng) -> Float[Tensor, "b 1"]:
        """Uniforms that noise levels are drawn with, one for each row, stratified over the global batch."""
        return low_discrepancy(rng, batch.global_batch_size or len(batch.tokens))[:, None]

    def sample_prior(self, like: Tokens, *, rng: Rng) -> Tokens:
        """All masked."""
        return torch.full_like(like, self.mask)

    def add_noise(self, x0: Tokens, t: NoiseTimes, *, rng: Rng) -> Tokens:
        survives = rng.uniform(x0.shape[1]) < self._per_position(self.schedule.alpha(t), x0)
        return torch.where(survives, x0, self.mask)

    def log_likelihood(self, xt: Tokens, x0: Tokens, t: NoiseTimes) -> PerPosition:
        alpha = self._per_position(self.schedule.alpha(t), x0)
        return torch.where(xt == self.mask, torch.log1p(-alpha), torch.where(xt == x0, torch.log(alpha), -torch.inf))

    def is_noisy(self, xt: Tokens) -> Mask:
        return xt == self.mask

    def self_log_odds(self, xt: Tokens, t: NoiseTimes) -> None:
        """None: a mask carries no information about its token."""

    def posterior(self, xt: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes) -> ReverseStep:
        """p(x_s | x_t) for s < t (MDLM, eq. 7): reveal with probability (alpha_s - alpha_t) / (1 - alpha_t)."""
        return ReverseStep(torch.where(self.is_noisy(xt), self._reveal_prob(xt, t, s), 0.0), prediction.logits)

    def kl(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes, where: Mask) -> KLAndNLL:
        nll = prediction.nll(x0, where & self.is_noisy(xt))
        return self._reveal_prob(xt, t, s) * nll, nll

    def kl_rate(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, where: Mask) -> KLAndNLL:
        nll = prediction.nll(x0, where & self.is_noisy(xt))
        return self._per_position(self.schedule.loss_weight(t), xt) * nll, nll

    def _reveal_prob(self, xt: Tensor, t: Tensor, s: Tensor) -> PerPosition:
        mask_prob_t = self._per_position(self.schedule.mask_prob(t), xt)
        mask_prob_s = self._per_position(self.schedule.mask_prob(s), xt)
        return ((mask_prob_t - mask_prob_s) / mask_prob_t).expand(xt.shape)
