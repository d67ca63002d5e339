"""The sampler a model is meant for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .base import SamplerPart

if TYPE_CHECKING:
    from ..samplers.base import Sampler


@dataclass(frozen=True)
class Ancestral(SamplerPart):
    """Ancestral sampling of processes over token ids."""

    def build(self) -> Sampler:
        from ..samplers.ancestral import Ancestral as Built

        return Built()


@dataclass(frozen=True)
class Euler(SamplerPart):
    """Euler steps along ratios of probabilities."""

    def build(self) -> Sampler:
        from ..samplers.ancestral import Euler as Built

        return Built()


@dataclass(frozen=True)
class Tweedie(SamplerPart):
    """Steps along ratios of probabilities, exact for each position (Tweedie tau-leaping)."""

    def build(self) -> Sampler:
        from ..samplers.ancestral import Tweedie as Built

        return Built()


@dataclass(frozen=True)
class Autoregressive(SamplerPart):
    """One token a step (0 steps: as many as tokens)."""

    fewest: ClassVar[int] = 0
    steps: int = 0

    def build(self) -> Sampler:
        from ..samplers.autoregressive import Autoregressive as Built

        return Built()


@dataclass(frozen=True)
class BlockAncestral(SamplerPart):
    """Ancestral sampling block after block; the steps are those of the whole text (0 steps: as many as tokens)."""

    fewest: ClassVar[int] = 0
    steps: int = 0

    def build(self) -> Sampler:
        from ..samplers.blocks import BlockAncestral as Built

        return Built()
