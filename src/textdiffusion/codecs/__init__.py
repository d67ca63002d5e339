"""Codecs: tokens <-> the state that a process corrupts."""

from typing import Protocol

from jaxtyping import Int
from torch import Tensor


class Codec(Protocol):
    """Encodes token ids into clean states."""

    vocab: int

    def encode(self, ids: Int[Tensor, "b l"]) -> Tensor: ...
