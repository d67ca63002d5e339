"""What the processes over token ids have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.randomness import Rng
from ..core.registry import Part
from .alpha_schedules import AlphaSchedule
from .prediction import Prediction
from .ratios import Graph, ReverseStep


class ProcessConfig(Part, ABC):
    """Settings of a noise process. `codecs`: the codecs whose states it corrupts (none listed: all)."""

    codecs: ClassVar[tuple[type[nn.Module], ...]] = ()


class TokenProcess(nn.Module, ABC):
    """A process over token ids, whose reverse steps change positions independently.

    `num_states` is `vocab_size`, plus one if there is a mask. `graph` holds its ratios and the cost of its prior.
    """

    bidirectional: ClassVar[bool] = True  # predictions see the positions before and after their own

    vocab_size: int
    num_states: int
    schedule: AlphaSchedule
    graph: Graph

    @abstractmethod
    def time_conditioning(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The value a time-conditioned network receives for t."""

    @abstractmethod
    def sample_prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A sample of x_1, pure noise."""

    @abstractmethod
    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A sample of q(x_t | x_0)."""

    @abstractmethod
    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""

    @abstractmethod
    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions that a reverse step may change."""

    @abstractmethod
    def self_log_odds(self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Float[Tensor, "b l"] | None:
        """log q(x_t | x_0 = x_t) - log q(x_t | x_0 = another token) in nats; None if noisy states are uninformative."""

    def forward_step(
        self, xs: Int[Tensor, "b l"], s: Float[Tensor, "b *l"], t: Float[Tensor, "b *l"], *, rng: Rng
    ) -> Int[Tensor, "b l"]:
        """A sample of q(x_t | x_s), t >= s: a state survives with probability alpha_t / alpha_s."""
        alpha = self._per_position(self.schedule.alpha(t) / self.schedule.alpha(s), xs)
        survives = rng.fork("survive").uniform(xs.shape[1]) < alpha
        return torch.where(survives, xs, self.sample_prior(xs, rng=rng.fork("token")))

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
        """The limit of kl / (t - s) as s tends to t, and -log p(x_0 | x_t), nats at `where`, 0 elsewhere."""

    def reverse(
        self,
        xt: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        *,
        rng: Rng,
    ) -> Int[Tensor, "b l"]:
        """A sample of x_s from the posterior."""
        return self.posterior(xt, prediction, t, s).sample(xt, rng=rng)

    @staticmethod
    def _per_position(value: Tensor, x: Tensor) -> Tensor:
        """A value per row or per position, shaped to combine with states."""
        return value if value.ndim == x.ndim else value[:, None]


class TokenNoiseProcess(TokenProcess):
    """A process whose noise is tokens: a token survives with probability alpha(t), else the prior replaces it."""

    def time_conditioning(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The value a time-conditioned network receives for t: 1 - alpha, the probability of being replaced."""
        return self.schedule.mask_prob(t)

    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A sample of q(x_t | x_0)."""
        survives = rng.fork("survive").uniform(x0.shape[1]) < self._per_position(self.schedule.alpha(t), x0)
        return torch.where(survives, x0, self.sample_prior(x0, rng=rng.fork("token")))

    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions that a reverse step may change: all."""
        return torch.ones_like(xt, dtype=torch.bool)

    def leave_one_out(self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"]) -> Prediction:
        """p(x_0 at a position | x_t at all other positions), the leave-one-out prediction.

        The reverse step and the bounds of this process are simple in it. It is the output x_theta of UDLM and Duo.
        """
        log_odds = self.self_log_odds(xt, t)
        assert log_odds is not None
        return Prediction(prediction.logits.scatter_add(-1, xt[..., None], -log_odds[..., None]))
