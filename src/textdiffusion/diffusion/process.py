"""What the processes over token ids have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.randomness import Rng
from ..core.registry import Part
from ..core.types import Mask, NoiseTimes, PerPosition, Tokens, Values
from .alpha_schedules import AlphaSchedule
from .prediction import Prediction
from .ratios import Graph, ReverseStep

KLAndNLL = tuple[PerPosition, PerPosition]
"""A divergence, and -log p(x_0 | x_t), both in nats at the positions asked for and 0 elsewhere."""


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
    def time_conditioning(self, t: Values) -> Values:
        """The value a time-conditioned network receives for t."""

    @abstractmethod
    def sample_prior(self, like: Tokens, *, rng: Rng) -> Tokens:
        """A sample of x_1, pure noise."""

    @abstractmethod
    def add_noise(self, x0: Tokens, t: NoiseTimes, *, rng: Rng) -> Tokens:
        """A sample of q(x_t | x_0)."""

    @abstractmethod
    def log_likelihood(self, xt: Tokens, x0: Tokens, t: NoiseTimes) -> PerPosition:
        """log q(x_t | x_0) in nats per position."""

    @abstractmethod
    def is_noisy(self, xt: Tokens) -> Mask:
        """The positions that a reverse step may change."""

    @abstractmethod
    def self_log_odds(self, xt: Tokens, t: NoiseTimes) -> PerPosition | None:
        """log q(x_t | x_0 = x_t) - log q(x_t | x_0 = another token) in nats; None if noisy states are uninformative."""

    def forward_step(self, xs: Tokens, s: NoiseTimes, t: NoiseTimes, *, rng: Rng) -> Tokens:
        """A sample of q(x_t | x_s), t >= s: a state survives with probability alpha_t / alpha_s."""
        alpha = self._per_position(self.schedule.alpha(t) / self.schedule.alpha(s), xs)
        survives = rng.fork("survive").uniform(xs.shape[1]) < alpha
        return torch.where(survives, xs, self.sample_prior(xs, rng=rng.fork("token")))

    @abstractmethod
    def posterior(self, xt: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes) -> ReverseStep:
        """p(x_s | x_t) for s < t, q(x_s | x_t, x_0) averaged over p(x_0 | x_t)."""

    @abstractmethod
    def kl(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes, where: Mask) -> KLAndNLL:
        """KL(q(x_s | x_t, x_0) || p(x_s | x_t, prediction))."""

    @abstractmethod
    def kl_rate(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, where: Mask) -> KLAndNLL:
        """The limit of kl / (t - s) as s tends to t."""

    def reverse(self, xt: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes, *, rng: Rng) -> Tokens:
        """A sample of x_s from the posterior."""
        return self.posterior(xt, prediction, t, s).sample(xt, rng=rng)

    @staticmethod
    def _per_position(value: Tensor, x: Tensor) -> Tensor:
        """A value per row or per position, shaped to combine with states."""
        return value if value.ndim == x.ndim else value[:, None]
