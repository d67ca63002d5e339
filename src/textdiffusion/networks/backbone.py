"""The network inside a denoiser: what it must do, and the settings that every one of them has."""

from __future__ import annotations

from abc import ABC
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from ..core.registry import Part
from ..core.types import AttentionMask, Hidden, NoiseTimes, PositionIds

Modulation = Literal["none", "adaln", "film", "added"]
"""How the noise level acts on the features: not at all, by adaptive layer norms with gates (adaLN-Zero, Peebles & Xie
2022), by scale and shift (FiLM, Perez et al. 2017), or by a vector that is added to them."""


@dataclass(frozen=True)
class BackboneConfig(Part, ABC):
    """The network between a denoiser's input and its output: features in, features out.

    A subclass also has `modulation`, as a setting or as a class variable. `supports_packing`: the network keeps the
    examples of a packed row apart.
    """

    supports_packing: ClassVar[bool] = True

    width: int = 128
    depth: int = 4

    @property
    def context_length(self) -> int:
        """The most tokens that the network reads at once, if that is not the length of a training window (0: it is)."""
        return 0

    @property
    def parameter_bytes(self) -> int:
        """Bytes of one parameter."""
        return 4

    def resized(self, depth: int) -> BackboneConfig:
        """The same settings for a network with another number of layers."""
        return replace(self, depth=depth)

    def building_to_load(self) -> AbstractContextManager[None]:
        """A context in which the backbone is built, if its weights will be read from files."""
        return nullcontext()

    def load_pretrained(self, backbone: Any) -> str | None:
        """Reads the weights that these settings name, when a new run begins. Returns a sentence about them, if any."""
        return None


@runtime_checkable
class Backbone(Protocol):
    """Features in, features out, computed in `compute_dtype`.

    `blocks` are the layers that repeat: compilation time grows with their number, and Muon updates their matrices.
    """

    width: int
    modulation: Modulation
    compute_dtype: torch.dtype
    blocks: nn.ModuleList

    def __call__(
        self, x: Hidden, noise_level: NoiseTimes | None, positions: PositionIds, mask: AttentionMask | None
    ) -> Hidden: ...
