"""The uniform process: a token stays or is drawn afresh from noise, independently at every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..prediction import Prediction
from ..randomness import Rng
from .graphs import UniformGraph
from .schedules import MaskSchedule


@dataclass(frozen=True)
class RedrawingLaw:
    """p(x_s | x_t, prediction), factorised over positions: a state is drawn afresh with probability `redraw`.

    It then follows `probs`, which may well be the old state. The two are kept apart because a rare token drawn in one
    low-precision race against "stay" is lost (specs: discrete 5.3).
    """

    redraw: Float[Tensor, "b l"]
    probs: Float[Tensor, "b l v"]

    def dense(self, xt: Int[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        """The law as probabilities over tokens."""
        kept = nn.functional.one_hot(xt, self.probs.shape[-1]).to(self.probs.dtype)
        return torch.lerp(kept, self.probs, self.redraw[..., None])


class UniformProcess(nn.Module):
    """q(x_t | x_0): a token survives with probability alpha(t), else it is any of the `vocab` tokens (D3PM, UDLM)."""

    two_sided: ClassVar[bool] = True  # predictions see what stands before and after a position

    def __init__(self, vocab: int, schedule: MaskSchedule) -> None:
        super().__init__()
        self.vocab, self.states, self.schedule = vocab, vocab, schedule
        self.graph = UniformGraph(vocab, schedule)

    def level(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """What a time-conditioned network is told about t: the share drawn afresh, 1 - alpha."""
        return self.schedule.share(t)

    def prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """Any token."""
        return (rng.words(like.shape[1]) * self.vocab) >> 32

    def corrupt(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_0."""
        survive = rng.fork("survive").uniform(x0.shape[1]) < self._over(self.schedule.alpha(t), x0)
        return torch.where(survive, x0, self.prior(x0, rng=rng.fork("token")))

    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""
        alpha, share = self._over(self.schedule.alpha(t), x0), self._over(self.schedule.share(t), x0)
        return torch.log(alpha * (xt == x0) + share / self.vocab)

    def changing(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change: all."""
        return torch.ones_like(xt, dtype=torch.bool)

    def evidence(self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0 = x_t) - log q(x_t | x_0 = another token), what a state says for itself, in nats."""
        alpha, share = self._over(self.schedule.alpha(t), xt), self._over(self.schedule.share(t), xt)
        return torch.log1p(self.vocab * alpha / share.clamp(min=2.0**-24)).expand(xt.shape)

    def others(self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"]) -> Prediction:
        """p(x_0 at a position | x_t at all others): the prediction without what the position's own state says.

        All laws of this process are simple in it; it is what the networks of UDLM and Duo put out (x_theta).
        """
        own = self.evidence(xt, t)[..., None]
        return Prediction(prediction.logits.scatter_add(-1, xt[..., None], -own))

    def posterior(
        self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"], s: Float[Tensor, "b *l"]
    ) -> RedrawingLaw:
        """p(x_s | x_t) for s < t (UDLM, eq. 14, split in two), q(x_s | x_t, x_0) averaged over p(x_0 | x_t).

        With pi the law given the others, redraw with (1 - alpha_t / alpha_s) / (K alpha_t pi(x_t) + 1 - alpha_t) from
        alpha_s pi + (1 - alpha_s) / K.
        """
        alpha_t, alpha_s = self._over(self.schedule.alpha(t), xt), self._over(self.schedule.alpha(s), xt)
        share_t, share_s = self._over(self.schedule.share(t), xt), self._over(self.schedule.share(s), xt)
        pi = self.others(xt, prediction, t).probs
        shown = pi.gather(-1, xt[..., None])[..., 0]
        redraw = (share_t - share_s) / alpha_s / (self.vocab * alpha_t * shown + share_t)
        return RedrawingLaw(redraw, alpha_s[..., None] * pi + share_s[..., None] / self.vocab)

    def reverse(
        self,
        xt: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        *,
        rng: Rng,
    ) -> Int[Tensor, "b l"]:
        """A draw of x_s from the posterior: whether to draw afresh first, then the token."""
        law = self.posterior(xt, prediction, t, s)
        redrawn = rng.fork("redraw").uniform(xt.shape[1]) < law.redraw
        return xt.masked_scatter(redrawn, rng.fork("token").categorical_at(redrawn, law.probs[redrawn]))

    @staticmethod
    def _over(value: Tensor, x: Tensor) -> Tensor:
        return value if value.ndim == x.ndim else value[:, None]
