"""The two graphs of discrete noise: which token can turn into which, and the probability ratios along the edges.

A score network predicts s_y = p_t(x_t with token y here) / p_t(x_t), at every position and for every other token y.
These ratios and p(x0 | x_t) carry the same information, and a graph converts one into the other, so that neither
samplers nor bounds depend on which of them a network predicts. sigma = -log alpha is the total noise, and rates are per
unit of t. Everything is float32 logarithms, because ratios are large when few masks or few errors are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..core.types import Logits, Mask, PerPosition, Tokens, Values
from .alpha_schedules import AlphaSchedule

Ids = Int[Tensor, "*b"]
PerToken = Float[Tensor, "*b v"]


@dataclass(frozen=True)
class ReverseStep:
    """A reverse step p(x_s | x_t): with probability `jump_prob` a position jumps to a token, else it is unchanged.

    The two decisions are sampled separately, since one low-precision draw for both would lose rare tokens.
    `logits` are the log weights of the new token, which may be the old one.
    """

    jump_prob: PerPosition
    logits: Logits

    def sample(self, xt: Tokens, *, rng: Rng) -> Tokens:
        """A sample of x_s."""
        jumps: Mask = rng.fork("reveal").uniform(xt.shape[1]) < self.jump_prob
        token = rng.fork("token").categorical_at(jumps, self.logits[jumps].softmax(-1))
        return xt.masked_scatter(jumps, token)

    def dense(self, xt: Tokens, num_states: int) -> Float[Tensor, "b l num_states"]:
        """The probabilities of x_s over all states, of which the first `v` are tokens."""
        stay = F.one_hot(xt, num_states).to(self.logits.dtype)
        jump = F.pad(self.logits.softmax(-1), (0, num_states - self.logits.shape[-1]))
        return torch.where(self.jump_prob[..., None] > 0.0, torch.lerp(stay, jump, self.jump_prob[..., None]), stay)


@runtime_checkable
class Graph(Protocol):
    """The probability ratios of a process. Positions may have any shape; `t` has one entry for each."""

    def log_score(self, logits: PerToken, xt: Ids, t: Values) -> PerToken: ...

    def x0_logits(self, log_score: PerToken, xt: Ids, t: Values) -> PerToken: ...

    def score_entropy(self, log_score: PerToken, x0: Ids, xt: Ids, t: Values) -> Values: ...

    def prior_kl(self, ids: Ids, nll: Callable[[], Values]) -> Values | float: ...

    def euler(self, log_score: PerToken, xt: Ids, t: Values, s: Values) -> ReverseStep: ...

    def tweedie(self, log_score: PerToken, xt: Ids, t: Values, s: Values) -> ReverseStep: ...


def _log_odds(schedule: AlphaSchedule, t: Values) -> Values:
    """log (e^sigma - 1) = log (1 - alpha) / alpha; finite because sigma is clipped at 40."""
    return torch.log(schedule.mask_prob(t)) - torch.log(schedule.alpha(t).clamp(min=math.exp(-40.0)))


@dataclass(frozen=True)
class AbsorbingGraph:
    """Tokens turn into the mask, id `vocab_size`, at rate sigma'. Ratios are only defined at masked positions."""

    vocab_size: int
    schedule: AlphaSchedule

    def log_score(self, logits: PerToken, xt: Ids, t: Values) -> PerToken:
        """s_y = p(x0 = y | x_t) / (e^sigma - 1)."""
        return logits.log_softmax(-1) - _log_odds(self.schedule, t)[..., None]

    def x0_logits(self, log_score: PerToken, xt: Ids, t: Values) -> PerToken:
        """The inverse. The mass, the sum of their exponentials, is 1 if the ratios are those of a distribution."""
        return log_score + _log_odds(self.schedule, t)[..., None]

    def score_entropy(self, log_score: PerToken, x0: Ids, xt: Ids, t: Values) -> Values:
        """Nats per unit of t (SEDD, eq. 10): sigma' [sum_y s_y - r log s_x0 + r (log r - 1)], r = 1 / (e^sigma - 1).

        That is loss_weight(t) [mass - 1 - log mass - log p(x0)]: the masked bound plus a penalty for an error of the
        mass. This form is not rounded away as sigma falls to 0.
        """
        logits = self.x0_logits(log_score, xt, t)
        nats = torch.expm1(logits.logsumexp(-1)) - logits.gather(-1, x0[..., None])[..., 0]
        return torch.where(xt == self.vocab_size, self.schedule.loss_weight(t) * nats, 0.0)

    def prior_kl(self, ids: Ids, nll: Callable[[], Values]) -> Values | float:
        """The cost of starting from masks alone if tokens survive with probability alpha(1)."""
        alpha = float(self.schedule.alpha(torch.ones(())))
        return alpha * nll() if alpha > 0.0 else 0.0

    def euler(self, log_score: PerToken, xt: Ids, t: Values, s: Values) -> ReverseStep:
        """One Euler step from t to s (SEDD, section 4.1)."""
        return self._reverse_step(log_score, xt, t, (t - s) * self.schedule.loss_weight(t))

    def tweedie(self, log_score: PerToken, xt: Ids, t: Values, s: Values) -> ReverseStep:
        """A step that is exact for each position by itself (SEDD, section 4.2)."""
        mask_prob_t, mask_prob_s = self.schedule.mask_prob(t), self.schedule.mask_prob(s)
        return self._reverse_step(log_score, xt, t, (mask_prob_t - mask_prob_s) / mask_prob_t)

    def _reverse_step(self, log_score: PerToken, xt: Ids, t: Values, reveal_prob: Values) -> ReverseStep:
        """`reveal_prob` is the jump probability if the ratios have mass 1."""
        logits = self.x0_logits(log_score, xt, t)
        jump_prob = (reveal_prob * logits.logsumexp(-1).exp()).clamp(max=1.0)
        return ReverseStep(torch.where(xt == self.vocab_size, jump_prob, 0.0), logits)


@dataclass(frozen=True)
class UniformGraph:
    """Tokens turn into any of the K = `vocab_size` tokens at rate sigma' / K each. The ratio of a token to itself is 1.

    Let c = (1 - alpha) / K be the probability of arriving at a given other token. Then q(x_t | x0) is alpha + c where
    x_t = x0 and c elsewhere.
    """

    vocab_size: int
    schedule: AlphaSchedule

    def log_score(self, logits: PerToken, xt: Ids, t: Values) -> PerToken:
        """s_y = sum_a p(x0 = a | x_t) q(y | a) / q(x_t | a), a sum without cancellation."""
        is_self, log_odds = _one_hot(xt, self.vocab_size), self._log_alpha_over_c(t)
        log_p = logits.log_softmax(-1)
        other = log_p.masked_fill(is_self, -torch.inf).logsumexp(-1, keepdim=True).exp()
        same = (log_p.gather(-1, xt[..., None]) - F.softplus(log_odds)).exp()
        return torch.log(other + same + (log_p + log_odds).exp()).masked_fill(is_self, 0.0)

    def x0_logits(self, log_score: PerToken, xt: Ids, t: Values) -> PerToken:
        """p(x0 | x_t) of s / sum(s) = alpha pi + c, where pi = p(x0 | the other positions of x_t) is clipped at 0."""
        c, alpha = self.schedule.mask_prob(t)[..., None] / self.vocab_size, self.schedule.alpha(t)[..., None]
        pi = (log_score.softmax(-1) - c).clamp(min=1e-30)
        return torch.log(pi) + torch.log(torch.where(_one_hot(xt, self.vocab_size), alpha + c, c))

    def score_entropy(self, log_score: PerToken, x0: Ids, xt: Ids, t: Values) -> Values:
        """Nats per unit of t (SEDD, eq. 10): sigma' / K * sum over y != x_t of s_y - r_y + r_y log (r_y / s_y).

        r_y = q(y | x0) / q(x_t | x0).
        """
        log_ratio = F.softplus(self._log_alpha_over_c(t))  # log (alpha + c) / c
        log_r_moved = torch.where(_one_hot(x0, self.vocab_size), log_ratio, 0.0)
        log_r = torch.where((xt == x0)[..., None], -log_ratio, log_r_moved)
        gap = log_score - log_r
        terms = log_r.exp() * (torch.expm1(gap) - gap)
        return self._rate(t) * terms.masked_fill(_one_hot(xt, self.vocab_size), 0.0).sum(-1)

    def prior_kl(self, ids: Ids, nll: Callable[[], Values]) -> float:
        """KL(q(x_1 | x_0) || uniform) of a position."""
        alpha = float(self.schedule.alpha(torch.ones(())))
        c = (1.0 - alpha) / self.vocab_size
        return (alpha + c) * math.log((alpha + c) * self.vocab_size) + (self.vocab_size - 1) * c * math.log1p(-alpha)

    def euler(self, log_score: PerToken, xt: Ids, t: Values, s: Values) -> ReverseStep:
        """One Euler step from t to s (SEDD, section 4.1)."""
        logits = log_score.masked_fill(_one_hot(xt, self.vocab_size), -torch.inf)
        return ReverseStep(((t - s) * self._rate(t) * logits.logsumexp(-1).exp()).clamp(max=1.0), logits)

    def tweedie(self, log_score: PerToken, xt: Ids, t: Values, s: Values) -> ReverseStep:
        """A step that is exact for each position by itself (SEDD, section 4.2).

        s / sum(s) is the distribution of the token here at t given the other positions. Undoing the noise between s and
        t gives that at s, and Bayes' rule gives the jump. If alpha_t / alpha_s is below 1e-5, float32 ratios are too
        coarse, and the state stays as it is.
        """
        is_self, alpha_s = _one_hot(xt, self.vocab_size), self.schedule.alpha(s)[..., None]
        alpha_ts = self.schedule.alpha(t)[..., None] / alpha_s
        c = (self.schedule.mask_prob(t) - self.schedule.mask_prob(s))[..., None] / alpha_s / self.vocab_size
        weights = self.earlier_marginal(log_score, t, s) * torch.where(is_self, alpha_ts + c, c)
        jump = weights.masked_fill(is_self, 0.0)
        jump_prob = torch.where(alpha_ts[..., 0] > 1e-5, jump.sum(-1) / weights.sum(-1), 0.0)
        return ReverseStep(jump_prob, torch.log(jump))

    def earlier_marginal(self, log_score: PerToken, t: Values, s: Values) -> PerToken:
        """The token here at s given the other positions at t, up to a constant: that at t without the noise since s."""
        c = (self.schedule.mask_prob(t) - self.schedule.mask_prob(s)) / self.schedule.alpha(s) / self.vocab_size
        return (log_score.softmax(-1) - c[..., None]).clamp(min=0.0)

    def _log_alpha_over_c(self, t: Values) -> Float[Tensor, "*b 1"]:
        """log (alpha / c)."""
        return math.log(self.vocab_size) - _log_odds(self.schedule, t)[..., None]

    def _rate(self, t: Values) -> Values:
        """sigma' / K."""
        return self.schedule.loss_weight(t) * torch.exp(-self._log_alpha_over_c(t)[..., 0])


def _one_hot(ids: Ids, vocab_size: int) -> Bool[Tensor, "*b v"]:
    return ids[..., None] == torch.arange(vocab_size, device=ids.device)
