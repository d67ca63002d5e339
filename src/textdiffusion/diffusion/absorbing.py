"""The absorbing (masked) process: a token stays or becomes the mask, independently at every position."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from .densities import low_discrepancy
from .prediction import Prediction
from .process import TokenProcess
from .ratios import AbsorbingGraph, ReverseStep
from .schedules import AlphaSchedule


class AbsorbingProcess(TokenProcess):
    """q(x_t | x_0): a token survives with probability alpha(t), else it is the mask, id `vocab` (D3PM, SEDD, MDLM).

    `sigma`: networks are told the total noise, not the masked share.
    """

    def __init__(self, vocab_size: int, schedule: AlphaSchedule, *, sigma: bool = False) -> None:
        super().__init__()
        self.tells_sigma = sigma
        self.vocab_size, self.num_states, self.mask, self.schedule = vocab_size, vocab_size + 1, vocab_size, schedule
        self.graph = AbsorbingGraph(vocab_size, schedule)

    def time_conditioning(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """What a time-conditioned network is told about t: the masked share 1 - alpha, or sigma = -ln(alpha)."""
        return -torch.log(self.schedule.alpha(t)) if self.tells_sigma else self.schedule.mask_prob(t)

    def block_starts(self, batch: Batch) -> Int[Tensor, "1 1"]:
        """The place where what shares a noise level begins: the whole row does."""
        return torch.zeros(1, 1, dtype=torch.long, device=batch.tokens.device)

    def stratified_uniforms(self, batch: Batch, *, rng: Rng) -> Float[Tensor, "b 1"]:
        """Uniforms to draw noise levels by, one for each row, stratified over the global batch."""
        return low_discrepancy(rng, batch.global_batch_size or len(batch.tokens))[:, None]

    def sample_prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """All masked."""
        return torch.full_like(like, self.mask)

    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_0."""
        survive = rng.uniform(x0.shape[1]) < self._over(self.schedule.alpha(t), x0)
        return torch.where(survive, x0, self.mask)

    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""
        alpha = self._over(self.schedule.alpha(t), x0)
        kept = torch.where(xt == x0, torch.log(alpha), -torch.inf)
        return torch.where(xt == self.mask, torch.log1p(-alpha), kept)

    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change: masks."""
        return xt == self.mask

    def self_log_odds(self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> None:
        """A mask says nothing of the token behind it."""

    def posterior(
        self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"], s: Float[Tensor, "b *l"]
    ) -> ReverseStep:
        """p(x_s | x_t) for s < t (MDLM, eq. 7): reveal with (alpha_s - alpha_t) / (1 - alpha_t)."""
        return ReverseStep(torch.where(self.is_noisy(xt), self._reveal(xt, t, s), 0.0), prediction.logits)

    def kl(
        self,
        xt: Int[Tensor, "b l"],
        x0: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        where: Bool[Tensor, "b l"],
    ) -> tuple[Float[Tensor, "b l"], Float[Tensor, "b l"]]:
        """KL(q(x_s | x_t, x_0) || p(x_s | x_t, prediction)) and -log p(x_0 | x_t), nats at `where`, 0 elsewhere."""
        surprise = prediction.nll(x0, where & self.is_noisy(xt))
        return self._reveal(xt, t, s) * surprise, surprise

    def kl_rate(
        self,
        xt: Int[Tensor, "b l"],
        x0: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        where: Bool[Tensor, "b l"],
    ) -> tuple[Float[Tensor, "b l"], Float[Tensor, "b l"]]:
        """The limit of divergence / (t - s) as s tends to t; -log p(x_0 | x_t)."""
        surprise = prediction.nll(x0, where & self.is_noisy(xt))
        return self._over(self.schedule.loss_weight(t), xt) * surprise, surprise

    def _reveal(self, xt: Tensor, t: Tensor, s: Tensor) -> Float[Tensor, "b l"]:
        share_t, share_s = self._over(self.schedule.mask_prob(t), xt), self._over(self.schedule.mask_prob(s), xt)
        return ((share_t - share_s) / share_t).expand(xt.shape)
