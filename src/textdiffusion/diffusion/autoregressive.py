"""Autoregression as a process: the masked part is a suffix, and it shrinks by one token at a time."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.randomness import Rng


class AutoregressiveProcess(nn.Module):
    """The absorbing process in a fixed order: at t the last share t of every row is masked."""

    bidirectional: ClassVar[bool] = False  # predictions see only what stands before a position

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.mask = vocab_size, vocab_size

    def sample_prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """All masked."""
        return torch.full_like(like, self.mask)

    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, " b"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """x_t given x_0; there is nothing to draw."""
        return self._masked(x0, t)

    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change: masks."""
        return xt == self.mask

    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position: 0 where x_t is what x_0 becomes, else -inf."""
        return torch.where(xt == self._masked(x0, t), 0.0, -torch.inf)

    def _masked(self, x0: Int[Tensor, "b l"], t: Float[Tensor, " b"]) -> Int[Tensor, "b l"]:
        length = x0.shape[1]
        kept = torch.arange(length, device=x0.device) < torch.round((1.0 - t) * length)[:, None]
        return torch.where(kept, x0, self.mask)
