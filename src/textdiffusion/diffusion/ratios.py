"""Which token can turn into which: the two graphs of discrete noise, and the ratios of probabilities along their edges.

A score network predicts s_y = p_t(x_t with token y here) / p_t(x_t), at every position and for every other token y.
Such ratios and p(x0 | x_t) say the same: a graph turns one into the other, so that neither samplers nor bounds need to
know which of them a network predicts. sigma = -log alpha is the total noise, and rates are per unit of t. Everything
is float32 logarithms: with few masks or few errors left, ratios are large.
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
from .schedules import AlphaSchedule

Ids = Int[Tensor, "*b"]
Times = Float[Tensor, "*b"]
PerToken = Float[Tensor, "*b v"]


@dataclass(frozen=True)
class ReverseStep:
    """A step of the reverse process: with probability `chance` a position jumps to a token, else it stays as it is.

    The two decisions are drawn apart, since one low-precision race between them would lose rare tokens (specs:
    discrete 5.3). `logits` of the token jumped to, which may be the old one, are log weights.
    """

    jump_prob: Float[Tensor, "b l"]
    logits: Float[Tensor, "b l v"]

    def sample(self, xt: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """The state after the step."""
        moved: Bool[Tensor, "b l"] = rng.fork("reveal").uniform(xt.shape[1]) < self.jump_prob
        token = rng.fork("token").categorical_at(moved, self.logits[moved].softmax(-1))
        return xt.masked_scatter(moved, token)

    def dense(self, xt: Int[Tensor, "b l"], states: int) -> Float[Tensor, "b l states"]:
        """The law of the state after the step, of which the first `v` are tokens."""
        kept = F.one_hot(xt, states).to(self.logits.dtype)
        moved = F.pad(self.logits.softmax(-1), (0, states - self.logits.shape[-1]))
        return torch.where(self.jump_prob[..., None] > 0.0, torch.lerp(kept, moved, self.jump_prob[..., None]), kept)


@runtime_checkable
class Graph(Protocol):
    """The ratios of a process. Positions may have any shape; `t` has one entry for each."""

    def log_score(self, logits: PerToken, xt: Ids, t: Times) -> PerToken: ...

    def x0_logits(self, log_ratios: PerToken, xt: Ids, t: Times) -> PerToken: ...

    def score_entropy(self, log_ratios: PerToken, x0: Ids, xt: Ids, t: Times) -> Times: ...

    def prior_kl(self, ids: Ids, nll: Callable[[], Float[Tensor, "*b"]]) -> Float[Tensor, "*b"] | float: ...

    def euler(self, log_ratios: PerToken, xt: Ids, t: Times, s: Times) -> ReverseStep: ...

    def tweedie(self, log_ratios: PerToken, xt: Ids, t: Times, s: Times) -> ReverseStep: ...


def _log_odds(schedule: AlphaSchedule, t: Times) -> Times:
    """log (e^sigma - 1) = log (1 - alpha) / alpha; sigma is kept below 40 so that this is finite."""
    return torch.log(schedule.mask_prob(t)) - torch.log(schedule.alpha(t).clamp(min=math.exp(-40.0)))


@dataclass(frozen=True)
class AbsorbingGraph:
    """Tokens turn into the mask, id `vocab`, at rate sigma'. Only masks have ratios; other positions mean nothing."""

    vocab_size: int
    schedule: AlphaSchedule

    def log_score(self, logits: PerToken, xt: Ids, t: Times) -> PerToken:
        """s_y = p(x0 = y | x_t) / (e^sigma - 1)."""
        return logits.log_softmax(-1) - _log_odds(self.schedule, t)[..., None]

    def x0_logits(self, log_ratios: PerToken, xt: Ids, t: Times) -> PerToken:
        """The inverse. The mass, the sum of their exponentials, is 1 if the ratios are those of a law."""
        return log_ratios + _log_odds(self.schedule, t)[..., None]

    def score_entropy(self, log_ratios: PerToken, x0: Ids, xt: Ids, t: Times) -> Times:
        """Nats per unit of t (SEDD, eq. 10): sigma' [sum_y s_y - r log s_x0 + r (log r - 1)], r = 1 / (e^sigma - 1).

        That is rate(t) [mass - 1 - log mass - log p(x0)]: the masked bound, and what an error of the mass costs. In
        this form nothing is lost to rounding as sigma falls to 0.
        """
        logits = self.x0_logits(log_ratios, xt, t)
        nats = torch.expm1(logits.logsumexp(-1)) - logits.gather(-1, x0[..., None])[..., 0]
        return torch.where(xt == self.vocab_size, self.schedule.loss_weight(t) * nats, 0.0)

    def prior_kl(self, ids: Ids, nll: Callable[[], Float[Tensor, "*b"]]) -> Float[Tensor, "*b"] | float:
        """What a start from masks alone costs where a share alpha(1) of tokens survives: a first step reveals them."""
        alpha = float(self.schedule.alpha(torch.ones(())))
        return alpha * nll() if alpha > 0.0 else 0.0

    def euler(self, log_ratios: PerToken, xt: Ids, t: Times, s: Times) -> ReverseStep:
        """One Euler step from t to s (SEDD, section 4.1)."""
        return self._jumps(log_ratios, xt, t, (t - s) * self.schedule.loss_weight(t))

    def tweedie(self, log_ratios: PerToken, xt: Ids, t: Times, s: Times) -> ReverseStep:
        """A step that is exact for each position by itself (SEDD, section 4.2)."""
        share_t, share_s = self.schedule.mask_prob(t), self.schedule.mask_prob(s)
        return self._jumps(log_ratios, xt, t, (share_t - share_s) / share_t)

    def _jumps(self, log_ratios: PerToken, xt: Ids, t: Times, chance: Times) -> ReverseStep:
        """`chance` is that of ratios of mass 1."""
        logits = self.x0_logits(log_ratios, xt, t)
        chance = (chance * logits.logsumexp(-1).exp()).clamp(max=1.0)
        return ReverseStep(torch.where(xt == self.vocab_size, chance, 0.0), logits)


@dataclass(frozen=True)
class UniformGraph:
    """Tokens turn into any of the `vocab` tokens at rate sigma' / vocab each. The ratio of a token to itself is 1.

    Let c = (1 - alpha) / vocab be the chance of arriving at a given other token. Then q(x_t | x0) is alpha + c where
    x_t = x0 and c elsewhere.
    """

    vocab_size: int
    schedule: AlphaSchedule

    def log_score(self, logits: PerToken, xt: Ids, t: Times) -> PerToken:
        """s_y = sum_a p(x0 = a | x_t) q(y | a) / q(x_t | a), a sum without cancellation."""
        own, lift = _equal(xt, self.vocab_size), self._lift(t)
        logp = logits.log_softmax(-1)
        elsewhere = logp.masked_fill(own, -torch.inf).logsumexp(-1, keepdim=True).exp()
        here = (logp.gather(-1, xt[..., None]) - F.softplus(lift)).exp()
        return torch.log(elsewhere + here + (logp + lift).exp()).masked_fill(own, 0.0)

    def x0_logits(self, log_ratios: PerToken, xt: Ids, t: Times) -> PerToken:
        """p(x0 | x_t) of s / sum(s) = alpha pi + c, where pi, p(x0 | the rest of x_t), is cut at 0."""
        c, alpha = self.schedule.mask_prob(t)[..., None] / self.vocab_size, self.schedule.alpha(t)[..., None]
        pi = (log_ratios.softmax(-1) - c).clamp(min=1e-30)
        return torch.log(pi) + torch.log(torch.where(_equal(xt, self.vocab_size), alpha + c, c))

    def score_entropy(self, log_ratios: PerToken, x0: Ids, xt: Ids, t: Times) -> Times:
        """Nats per unit of t (SEDD, eq. 10): sigma' / vocab * sum over y != x_t of s_y - r_y + r_y log (r_y / s_y).

        r_y = q(y | x0) / q(x_t | x0).
        """
        lift = F.softplus(self._lift(t))  # log (alpha + c) / c
        log_r = torch.where((xt == x0)[..., None], -lift, torch.where(_equal(x0, self.vocab_size), lift, 0.0))
        gap = log_ratios - log_r
        terms = log_r.exp() * (torch.expm1(gap) - gap)
        return self._rate(t) * terms.masked_fill(_equal(xt, self.vocab_size), 0.0).sum(-1)

    def prior_kl(self, ids: Ids, nll: Callable[[], Float[Tensor, "*b"]]) -> float:
        """KL(q(x_1 | x_0) || uniform) of a position."""
        alpha = float(self.schedule.alpha(torch.ones(())))
        c = (1.0 - alpha) / self.vocab_size
        return (alpha + c) * math.log((alpha + c) * self.vocab_size) + (self.vocab_size - 1) * c * math.log1p(-alpha)

    def euler(self, log_ratios: PerToken, xt: Ids, t: Times, s: Times) -> ReverseStep:
        """One Euler step from t to s (SEDD, section 4.1)."""
        logits = log_ratios.masked_fill(_equal(xt, self.vocab_size), -torch.inf)
        return ReverseStep(((t - s) * self._rate(t) * logits.logsumexp(-1).exp()).clamp(max=1.0), logits)

    def tweedie(self, log_ratios: PerToken, xt: Ids, t: Times, s: Times) -> ReverseStep:
        """A step that is exact for each position by itself (SEDD, section 4.2).

        s / sum(s) is the law of the token here at t given the rest; undoing the noise since s gives that at s, and
        Bayes' rule the jump. Where less than 1e-5 survives float32 ratios cannot tell, and noise stays noise.
        """
        own, alpha_s = _equal(xt, self.vocab_size), self.schedule.alpha(s)[..., None]
        left = self.schedule.alpha(t)[..., None] / alpha_s
        c = (self.schedule.mask_prob(t) - self.schedule.mask_prob(s))[..., None] / alpha_s / self.vocab_size
        weights = (log_ratios.softmax(-1) - c).clamp(min=0.0) * torch.where(own, left + c, c)
        jump = weights.masked_fill(own, 0.0)
        chance = torch.where(left[..., 0] > 1e-5, jump.sum(-1) / weights.sum(-1), 0.0)
        return ReverseStep(chance, torch.log(jump))

    def _lift(self, t: Times) -> Float[Tensor, "*b 1"]:
        """log (alpha / c)."""
        return math.log(self.vocab_size) - _log_odds(self.schedule, t)[..., None]

    def _rate(self, t: Times) -> Times:
        """sigma' / vocab."""
        return self.schedule.loss_weight(t) * torch.exp(-self._lift(t)[..., 0])


def _equal(ids: Ids, vocab_size: int) -> Bool[Tensor, "*b v"]:
    return ids[..., None] == torch.arange(vocab_size, device=ids.device)
