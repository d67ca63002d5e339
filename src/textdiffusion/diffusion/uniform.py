"""The uniform process: a token stays or is replaced by a random one, independently at every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.randomness import Rng
from ..core.registry import builds
from ..core.types import Mask, NoiseTimes, PerPosition, Probs, Tokens
from .alpha_schedules import AlphaSchedule, LogLinear
from .codecs import TokenCodec
from .prediction import Prediction
from .process import KLAndNLL, ProcessConfig
from .ratios import ReverseStep, UniformGraph
from .token_noise import TokenNoiseProcess

MIN_NOISE_PROB = 2.0**-24  # 1 - alpha is clipped at this where something is divided by it


@dataclass(frozen=True)
class UniformNoise(ProcessConfig, name="uniform"):
    """Tokens become random tokens, all equally likely."""

    codecs: ClassVar = (TokenCodec,)

    schedule: AlphaSchedule = LogLinear()


@builds(UniformNoise)
class UniformProcess(TokenNoiseProcess):
    """q(x_t | x_0): a token survives with probability alpha(t), else it is one of K random tokens (D3PM, UDLM)."""

    def __init__(self, vocab_size: int, schedule: AlphaSchedule) -> None:
        super().__init__()
        self.vocab_size, self.num_states, self.schedule = vocab_size, vocab_size, schedule
        self.graph = UniformGraph(vocab_size, schedule)

    def sample_prior(self, like: Tokens, *, rng: Rng) -> Tokens:
        return (rng.random_uint32(like.shape[1]) * self.vocab_size) >> 32

    def log_likelihood(self, xt: Tokens, x0: Tokens, t: NoiseTimes) -> PerPosition:
        alpha = self._per_position(self.schedule.alpha(t), x0)
        noise_prob = self._per_position(self.schedule.mask_prob(t), x0)
        return torch.log(alpha * (xt == x0) + noise_prob / self.vocab_size)

    def self_log_odds(self, xt: Tokens, t: NoiseTimes) -> PerPosition:
        """log q(x_t | x_0 = x_t) - log q(x_t | x_0 = another token), in nats: the evidence of a state for itself."""
        noise_prob = self._noise_prob(t, xt)
        return torch.log1p(self.vocab_size * (1.0 - noise_prob) / noise_prob).expand(xt.shape)

    def posterior(self, xt: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes) -> ReverseStep:
        """p(x_s | x_t) for s < t (UDLM, eq. 14, split in two), q(x_s | x_t, x_0) averaged over p(x_0 | x_t).

        With pi the leave-one-out prediction, a position jumps with probability
        (1 - alpha_t / alpha_s) / (K alpha_t pi(x_t) + 1 - alpha_t), to a token from alpha_s pi + (1 - alpha_s) / K.
        A prediction with a score of its own steps by these ratios, which need not belong to any pi.
        """
        if prediction.has_own_score:
            t, s = (self._per_position(time, xt).expand(xt.shape) for time in (t, s))
            return self.graph.tweedie(prediction.log_score(self.graph, xt, t), xt, t, s)
        alpha_t = self._per_position(self.schedule.alpha(t), xt)
        alpha_s = self._per_position(self.schedule.alpha(s), xt)
        noise_prob_t = self._per_position(self.schedule.mask_prob(t), xt)
        noise_prob_s = self._per_position(self.schedule.mask_prob(s), xt)
        pi = self.leave_one_out(xt, prediction, t).probs
        pi_xt = pi.gather(-1, xt[..., None])[..., 0]
        jump_prob = (noise_prob_t - noise_prob_s) / alpha_s / (self.vocab_size * alpha_t * pi_xt + noise_prob_t)
        return ReverseStep(jump_prob, torch.log(alpha_s[..., None] * pi + noise_prob_s[..., None] / self.vocab_size))

    def marginal(self, xt: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes) -> Probs:
        """p(x_s at a position | x_t at all other positions) for s < t, of a prediction with a score of its own."""
        t, s = (self._per_position(time, xt).expand(xt.shape) for time in (t, s))
        assert isinstance(self.graph, UniformGraph)
        return self.graph.earlier_marginal(prediction.log_score(self.graph, xt, t), t, s)

    def kl(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes, where: Mask) -> KLAndNLL:
        contrast, true_s, gap, nll = self._compare(xt, x0, prediction, t, s, where)
        noise_prob_t, noise_prob_s = self._noise_prob(t, xt), self._noise_prob(s, xt)
        true_t = torch.where(xt == x0, noise_prob_t + self.vocab_size * (1.0 - noise_prob_t), noise_prob_t)
        jump = 1.0 - self._per_position(self.schedule.alpha(t) / self.schedule.alpha(s), xt)
        stay_nats = torch.log1p(jump * gap / (1.0 + jump * (1.0 / true_s - 1.0)))
        nats = jump / self.vocab_size * true_s / true_t * contrast + stay_nats
        return torch.where(where, torch.where(noise_prob_s > MIN_NOISE_PROB, nats, nll), 0.0), nll

    def kl_rate(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, where: Mask) -> KLAndNLL:
        """The limit of kl / (t - s) as s tends to t (UDLM, eq. 18, grouped as in Duo), and -log p(x_0 | x_t)."""
        contrast, _, gap, nll = self._compare(xt, x0, prediction, t, t, where)
        rate = self._per_position(
            self.schedule.loss_weight(t) * self.schedule.mask_prob(t) / self.schedule.alpha(t), xt
        )
        return torch.where(where, rate * (contrast / self.vocab_size + gap), 0.0), nll

    def _compare(
        self, xt: Tensor, x0: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The true and the predicted distribution of the state at s, compared at the state x_t, all [b, l].

        Returns a sum over all other tokens (see _contrast), true = K q(x_t | x_0) at s, 1 / predicted - 1 / true, and
        -log p(x_0 | x_t).
        """
        noise_prob = self._noise_prob(s, xt)
        odds = (self.vocab_size * (1.0 - noise_prob) / noise_prob).expand(xt.shape)
        contrast, odds_pi, nll = prediction.map_positions(
            _contrast, where, xt, x0, self.self_log_odds(xt, t), odds
        ).unbind(-1)
        odds_x0 = odds * (xt == x0)
        gap = (odds_x0 - odds_pi) / (noise_prob * (1.0 + odds_x0) * (1.0 + odds_pi))
        return contrast, noise_prob * (1.0 + odds_x0), gap, nll

    def _noise_prob(self, t: Tensor, x: Tensor) -> Float[Tensor, "b #l"]:
        """1 - alpha, clipped so that it is never 0."""
        return self._per_position(self.schedule.mask_prob(t).clamp(min=MIN_NOISE_PROB), x)


def _contrast(
    logits: Float[Tensor, "n v"],
    xt: Int[Tensor, " n"],
    x0: Int[Tensor, " n"],
    self_log_odds: Float[Tensor, " n"],
    odds: Float[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    """The sum over j != z of a_j / a_z (log a_j / b_j - log a_z / b_z) at z = x_t; odds pi_z; and -log p(x_0 | x_t).

    a_j = 1 + odds [j = x_0] and b_j = 1 + odds pi_j are the true and predicted probabilities of a noisier state,
    divided by that of pure noise; pi is the leave-one-out prediction. a has only two values, so one sum of log b over
    the vocabulary is enough.
    """
    z = xt[:, None]
    pi = logits.scatter_add(-1, z, -self_log_odds[:, None]).softmax(-1)
    log_b = torch.log1p(odds[:, None] * pi)
    log_b_sum, log_b_z, log_b_x0 = log_b.sum(-1), log_b.gather(-1, z)[:, 0], log_b.gather(-1, x0[:, None])[:, 0]
    log_a_x0, is_x0 = torch.log1p(odds), xt == x0
    log_ratio_z = torch.where(is_x0, log_a_x0, 0.0) - log_b_z
    others = log_b_z - log_b_sum - (logits.shape[-1] - 1) * log_ratio_z  # as if a_j were 1 at all of them
    correction = log_b_x0 + log_ratio_z + (1.0 + odds) * (log_a_x0 - log_b_x0 - log_ratio_z)
    contrast = torch.where(is_x0, others / (1.0 + odds), others + correction)
    nll = nn.functional.cross_entropy(logits, x0, reduction="none")
    return torch.stack((contrast, odds * pi.gather(-1, z)[:, 0], nll), dim=-1)
