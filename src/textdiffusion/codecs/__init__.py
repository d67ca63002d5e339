"""Codecs: tokens <-> the state that a process corrupts."""

from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Encodes token ids into clean states."""

    vocab: int

    def encode(self, ids: Int[Tensor, "b l"]) -> Tensor: ...
