"""Autoregression as a process: a suffix is masked, and the reverse process reveals it one token at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..core.randomness import Rng
from ..core.registry import builds
from ..core.types import Mask, PerPosition, Times, Tokens
from .codecs import TokenCodec
from .process import ProcessConfig


@dataclass(frozen=True)
class AutoregressiveOrder(ProcessConfig):
    """Tokens become masks from the right."""

    codecs: ClassVar = (TokenCodec,)


@builds(AutoregressiveOrder)
class AutoregressiveProcess(nn.Module):
    """The absorbing process in a fixed order: at t the last fraction t of every row is masked."""

    bidirectional: ClassVar[bool] = False  # predictions see only the positions before their own

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.mask = vocab_size, vocab_size

    def sample_prior(self, like: Tokens, *, rng: Rng) -> Tokens:
        """All masked."""
        return torch.full_like(like, self.mask)

    def add_noise(self, x0: Tokens, t: Times, *, rng: Rng) -> Tokens:
        """x_t given x_0, which is deterministic."""
        return self._masked(x0, t)

    def is_noisy(self, xt: Tokens) -> Mask:
        """The positions that a reverse step may change: masks."""
        return xt == self.mask

    def log_likelihood(self, xt: Tokens, x0: Tokens, t: Times) -> PerPosition:
        """log q(x_t | x_0) in nats per position: 0 where x_t is what x_0 becomes, else -inf."""
        return torch.where(xt == self._masked(x0, t), 0.0, -torch.inf)

    def _masked(self, x0: Tokens, t: Times) -> Tokens:
        length = x0.shape[1]
        is_prefix = torch.arange(length, device=x0.device) < torch.round((1.0 - t) * length)[:, None]
        return torch.where(is_prefix, x0, self.mask)
