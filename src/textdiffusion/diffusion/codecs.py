"""How tokens become states: a codec maps token ids to the clean states that a process corrupts."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from ..core.registry import Part, builds


@runtime_checkable
class Codec(Protocol):
    """Encodes token ids into clean states."""

    vocab_size: int

    def encode(self, tokens: Int[Tensor, "b l"]) -> Tensor: ...


class CodecConfig(Part, ABC):
    """Settings of a codec."""


@dataclass(frozen=True)
class Tokens(CodecConfig):
    """States are token ids."""


@builds(Tokens)
class TokenCodec(nn.Module):
    """Clean states are token ids in [0, vocab_size)."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def encode(self, tokens: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """The ids unchanged."""
        return tokens
