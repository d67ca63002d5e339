"""What the processes over token ids share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.randomness import Rng
from .prediction import Prediction
from .ratios import Graph, ReverseStep
from .schedules import AlphaSchedule


class TokenProcess(nn.Module, ABC):
    """A process whose steps back are jumps of single positions.

    `vocab` tokens, `states` with the mask if there is one. `graph` has its ratios, and what its end costs.
    """

    bidirectional: ClassVar[bool] = True  # predictions see what stands before and after a position

    vocab_size: int
    num_states: int
    schedule: AlphaSchedule
    graph: Graph

    @abstractmethod
    def time_conditioning(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """What a time-conditioned network is told about t."""

    @abstractmethod
    def sample_prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """Pure noise."""

    @abstractmethod
    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_0."""

    @abstractmethod
    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""

    @abstractmethod
    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change."""

    @abstractmethod
    def self_log_odds(self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Float[Tensor, "b l"] | None:
        """log q(x_t | x_0 = x_t) - log q(x_t | x_0 = another token) in nats; None where states say nothing."""

    def forward_step(
        self, xs: Int[Tensor, "b l"], s: Float[Tensor, "b *l"], t: Float[Tensor, "b *l"], *, rng: Rng
    ) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_s, t >= s: what is there survives with probability alpha_t / alpha_s."""
        alpha = self._over(self.schedule.alpha(t) / self.schedule.alpha(s), xs)
        survive = rng.fork("survive").uniform(xs.shape[1]) < alpha
        return torch.where(survive, xs, self.sample_prior(xs, rng=rng.fork("token")))

    @abstractmethod
    def posterior(
        self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"], s: Float[Tensor, "b *l"]
    ) -> ReverseStep:
        """p(x_s | x_t) for s < t, q(x_s | x_t, x_0) averaged over p(x_0 | x_t)."""

    @abstractmethod
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

    @abstractmethod
    def kl_rate(
        self,
        xt: Int[Tensor, "b l"],
        x0: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        where: Bool[Tensor, "b l"],
    ) -> tuple[Float[Tensor, "b l"], Float[Tensor, "b l"]]:
        """The limit of divergence / (t - s) as s tends to t; -log p(x_0 | x_t)."""

    def reverse(
        self,
        xt: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        *,
        rng: Rng,
    ) -> Int[Tensor, "b l"]:
        """A draw of x_s from the posterior."""
        return self.posterior(xt, prediction, t, s).sample(xt, rng=rng)

    @staticmethod
    def _over(value: Tensor, x: Tensor) -> Tensor:
        """A value of every row or position, to combine with states."""
        return value if value.ndim == x.ndim else value[:, None]


class TokenNoiseProcess(TokenProcess):
    """A process whose noise is tokens: a token survives with probability alpha(t), else it is drawn from `prior`."""

    def time_conditioning(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """What a time-conditioned network is told about t: the share drawn afresh, 1 - alpha."""
        return self.schedule.mask_prob(t)

    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_0."""
        survive = rng.fork("survive").uniform(x0.shape[1]) < self._over(self.schedule.alpha(t), x0)
        return torch.where(survive, x0, self.sample_prior(x0, rng=rng.fork("token")))

    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change: all."""
        return torch.ones_like(xt, dtype=torch.bool)

    def leave_one_out(self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"]) -> Prediction:
        """p(x_0 at a position | x_t at all others): the prediction without what the position's own state says.

        All laws of this process are simple in it; it is what the networks of UDLM and Duo put out (x_theta).
        """
        own = self.self_log_odds(xt, t)
        assert own is not None
        return Prediction(prediction.logits.scatter_add(-1, xt[..., None], -own[..., None]))
