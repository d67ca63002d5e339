"""Autoregression as a process: the masked part is a suffix, and it shrinks by one token at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..randomness import Rng


class LeftToRightProcess(nn.Module):
    """The absorbing process in a fixed order: at t the last share t of every row is masked."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab, self.mask = vocab, vocab

    def prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """All masked."""
        return torch.full_like(like, self.mask)

    def corrupt(self, x0: Int[Tensor, "b l"], t: Float[Tensor, " b"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """x_t given x_0; there is nothing to draw."""
        length = x0.shape[1]
        kept = torch.arange(length, device=x0.device) < torch.round((1.0 - t) * length)[:, None]
        return torch.where(kept, x0, self.mask)
