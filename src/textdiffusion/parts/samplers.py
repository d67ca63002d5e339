"""The sampler a model is meant for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UserError
from .base import SamplerPart, bounded
from .states import AbsorbingBlocks

if TYPE_CHECKING:
    from ..config import Config
    from ..samplers.step import Sampler


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
        from ..samplers.jumps import Euler as Built

        return Built()


@dataclass(frozen=True)
class Analytic(SamplerPart):
    """Steps along ratios of probabilities, exact for each position (Tweedie tau-leaping)."""

    def build(self) -> Sampler:
        from ..samplers.jumps import Analytic as Built

        return Built()


@dataclass(frozen=True)
class Ordered(SamplerPart):
    """Reveals masks in an order, as many a step as its steps ask for or more (0 steps: as many as tokens).

    `order`: at random, from left to right, or first where the likeliest token is likeliest (`confidence`), the second
    is farthest behind (`margin`) or the entropy is least. A step also reveals all masks whose likeliest token has more
    than `threshold` (1: none), and those whose entropies, but for the largest, sum to at most `bound` nats (0: none).
    `block`: the masks of so many places come before those of the next (0: of all). From the masked share `greedy` on
    tokens are the likeliest and not drawn (0: never, 1: always). After that, `rounds` mask the share `again` of
    the places anew, and ever less, and reveal them; they take steps too: about 1 + rounds * again / 2 as many in all.
    """

    fewest: ClassVar[int] = 0
    steps: int = 0
    order: Literal["random", "confidence", "margin", "entropy", "left"] = "random"
    threshold: float = 1.0
    bound: float = 0.0
    block: int = 0
    greedy: float = 0.0
    rounds: int = 0
    again: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        bounded(self, threshold=(0.0, 1.0), bound=(0.0, None), block=(0, None), greedy=(0.0, 1.0))
        bounded(self, rounds=(0, None), again=(0.01, 1.0))

    def build(self) -> Sampler:
        from ..samplers.ordered import Ordered as Built

        return Built(
            self.order,
            threshold=self.threshold,
            bound=self.bound,
            block=self.block,
            greedy=self.greedy,
            rounds=self.rounds,
            again=self.again,
        )


@dataclass(frozen=True)
class LeftToRight(SamplerPart):
    """One token a step (0 steps: as many as tokens)."""

    fewest: ClassVar[int] = 0
    steps: int = 0

    def build(self) -> Sampler:
        from ..samplers.left_to_right import LeftToRight as Built

        return Built()


@dataclass(frozen=True)
class BlockAncestral(SamplerPart):
    """Ancestral sampling block after block; the steps are those of the whole text (0 steps: as many as tokens)."""

    fewest: ClassVar[int] = 0
    steps: int = 0

    def check(self, config: Config) -> None:
        blocks = -(-config.text.length // config.process.block) if isinstance(config.process, AbsorbingBlocks) else 0
        if 0 < self.steps < blocks:
            raise UserError(f"sampler.steps is {self.steps}; a window's {blocks} blocks take at least one each.")

    def build(self) -> Sampler:
        from ..samplers.block_ancestral import BlockAncestral as Built

        return Built()
