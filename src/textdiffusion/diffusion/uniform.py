"""The uniform process: a token stays or is drawn afresh from noise, independently at every position."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.randomness import Rng
from .prediction import Prediction
from .process import TokenNoiseProcess
from .ratios import ReverseStep, UniformGraph
from .schedules import AlphaSchedule

_LEAST = 2.0**-24  # of the share drawn afresh, where something is divided by it


class UniformProcess(TokenNoiseProcess):
    """q(x_t | x_0): a token survives with probability alpha(t), else it is any of the `vocab` tokens (D3PM, UDLM)."""

    def __init__(self, vocab_size: int, schedule: AlphaSchedule) -> None:
        super().__init__()
        self.vocab_size, self.num_states, self.schedule = vocab_size, vocab_size, schedule
        self.graph = UniformGraph(vocab_size, schedule)

    def sample_prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """Any token."""
        return (rng.random_uint32(like.shape[1]) * self.vocab_size) >> 32

    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""
        alpha, share = self._over(self.schedule.alpha(t), x0), self._over(self.schedule.mask_prob(t), x0)
        return torch.log(alpha * (xt == x0) + share / self.vocab_size)

    def self_log_odds(self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0 = x_t) - log q(x_t | x_0 = another token), what a state says for itself, in nats."""
        rest = self._rest(t, xt)
        return torch.log1p(self.vocab_size * (1.0 - rest) / rest).expand(xt.shape)

    def posterior(
        self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"], s: Float[Tensor, "b *l"]
    ) -> ReverseStep:
        """p(x_s | x_t) for s < t (UDLM, eq. 14, split in two), q(x_s | x_t, x_0) averaged over p(x_0 | x_t).

        With pi the law given the others, redraw with (1 - alpha_t / alpha_s) / (K alpha_t pi(x_t) + 1 - alpha_t) from
        alpha_s pi + (1 - alpha_s) / K.
        """
        alpha_t, alpha_s = self._over(self.schedule.alpha(t), xt), self._over(self.schedule.alpha(s), xt)
        share_t, share_s = self._over(self.schedule.mask_prob(t), xt), self._over(self.schedule.mask_prob(s), xt)
        pi = self.leave_one_out(xt, prediction, t).probs
        shown = pi.gather(-1, xt[..., None])[..., 0]
        redraw = (share_t - share_s) / alpha_s / (self.vocab_size * alpha_t * shown + share_t)
        return ReverseStep(redraw, torch.log(alpha_s[..., None] * pi + share_s[..., None] / self.vocab_size))

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
        contrast, true, gap, surprise = self._compared(xt, x0, prediction, t, s, where)
        late, rest = self._rest(t, xt), self._rest(s, xt)
        true_late = torch.where(xt == x0, late + self.vocab_size * (1.0 - late), late)
        jump = 1.0 - self._over(self.schedule.alpha(t) / self.schedule.alpha(s), xt)
        stayed = torch.log1p(jump * gap / (1.0 + jump * (1.0 / true - 1.0)))
        nats = jump / self.vocab_size * true / true_late * contrast + stayed
        return torch.where(where, torch.where(rest > _LEAST, nats, surprise), 0.0), surprise

    def kl_rate(
        self,
        xt: Int[Tensor, "b l"],
        x0: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        where: Bool[Tensor, "b l"],
    ) -> tuple[Float[Tensor, "b l"], Float[Tensor, "b l"]]:
        """The limit of divergence / (t - s) as s tends to t (UDLM, eq. 18, grouped as in Duo); -log p(x_0 | x_t)."""
        contrast, _, gap, surprise = self._compared(xt, x0, prediction, t, t, where)
        rate = self._over(self.schedule.loss_weight(t) * self.schedule.mask_prob(t) / self.schedule.alpha(t), xt)
        return torch.where(where, rate * (contrast / self.vocab_size + gap), 0.0), surprise

    def _compared(
        self, xt: Tensor, x0: Tensor, prediction: Prediction, t: Tensor, s: Tensor, where: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the true and the predicted law of the state at s say of the state x_t, all [b, l].

        A sum over all other tokens (see _contrast); true = K q(x_t | x_0) at s; 1 / predicted - 1 / true, and
        -log p(x_0 | x_t).
        """
        rest = self._rest(s, xt)
        odds = (self.vocab_size * (1.0 - rest) / rest).expand(xt.shape)
        contrast, shown, surprise = prediction.map_positions(
            _contrast, where, xt, x0, self.self_log_odds(xt, t), odds
        ).unbind(-1)
        same = odds * (xt == x0)
        gap = (same - shown) / (rest * (1.0 + same) * (1.0 + shown))
        return contrast, rest * (1.0 + same), gap, surprise

    def _rest(self, t: Tensor, x: Tensor) -> Float[Tensor, "b *l"]:
        """1 - alpha, but never 0."""
        return self._over(self.schedule.mask_prob(t).clamp(min=_LEAST), x)


def _contrast(
    logits: Float[Tensor, "n v"],
    xt: Int[Tensor, " n"],
    x0: Int[Tensor, " n"],
    own: Float[Tensor, " n"],
    odds: Float[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    """sum over j != z of a_j / a_z (log a_j / b_j - log a_z / b_z) at z = x_t; odds pi_z; and -log p(x_0 | x_t).

    a_j = 1 + odds [j = x_0] and b_j = 1 + odds pi_j are the true and predicted laws of a noisier state over the
    probability of pure noise; pi is the law given the other positions. a has only two values, so one sum of log b over
    the vocabulary is all it takes.
    """
    z = xt[:, None]
    pi = logits.scatter_add(-1, z, -own[:, None]).softmax(-1)
    log_b = torch.log1p(odds[:, None] * pi)
    total, at_z, at_x0 = log_b.sum(-1), log_b.gather(-1, z)[:, 0], log_b.gather(-1, x0[:, None])[:, 0]
    full, same = torch.log1p(odds), xt == x0
    ratio_z = torch.where(same, full, 0.0) - at_z
    others = at_z - total - (logits.shape[-1] - 1) * ratio_z  # as if a_j were 1 at all of them
    corrected = at_x0 + ratio_z + (1.0 + odds) * (full - at_x0 - ratio_z)
    contrast = torch.where(same, others / (1.0 + odds), others + corrected)
    surprise = nn.functional.cross_entropy(logits, x0, reduction="none")
    return torch.stack((contrast, odds * pi.gather(-1, z)[:, 0], surprise), dim=-1)
