"""What a denoiser needs of the network inside it."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Modulation = Literal["none", "adaln", "film", "added"]


@runtime_checkable
class Backbone(Protocol):
    """Features in, features out, computed in `compute_dtype`. `blocks` are what repeats: Muon's, and recompiled for."""

    width: int
    modulation: Modulation
    compute_dtype: torch.dtype
    blocks: nn.ModuleList

    def __call__(
        self,
        x: Float[Tensor, "b l w"],
        level: Float[Tensor, "b *l"] | None,
        at: Int[Tensor, "#b l"],
        mask: Bool[Tensor, "#b 1 l l"] | None,
    ) -> Float[Tensor, "b l w"]: ...
