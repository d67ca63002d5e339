"""The state of a discrete process is the ids themselves."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor, nn


class TokenCodec(nn.Module):
    """Clean states are token ids in 0 .. vocab-1."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab = vocab

    def encode(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """The ids."""
        return ids
