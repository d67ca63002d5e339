"""Samplers of masks and of other noise on tokens, beside the ancestral one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..core.errors import UserError
from .base import SamplerPart, check_bounds

if TYPE_CHECKING:
    from ..samplers.base import Sampler


@dataclass(frozen=True)
class Unmasking(SamplerPart):
    """Reveals masks in an order, as many a step as its steps ask for or more (0 steps: as many as tokens).

    `order`: at random, from left to right, or first where the likeliest token is likeliest (`confidence`), the second
    is farthest behind (`margin`) or the entropy is least. Places of one step are `spread` over the text, but from left
    to right. A step also reveals all masks whose likeliest token has more than `threshold` (1: none), and those whose
    entropies, but for the largest, sum to at most `bound` nats (0: none). `block`: the masks of so many places come
    before those of the next (0: of all). From the masked share `greedy` on tokens are the likeliest and not drawn (0:
    never, 1: always). After that, `rounds` mask the share `again` of the places anew, and ever less, and reveal them;
    they take steps too: about 1 + rounds * again / 2 as many in all.
    """

    fewest: ClassVar[int] = 0
    steps: int = 0
    order: Literal["random", "confidence", "margin", "entropy", "left"] = "random"
    threshold: float = 1.0
    entropy_bound: float = 0.0
    block_size: int = 0
    greedy_below: float = 0.0
    refine_rounds: int = 0
    remask_fraction: float = 0.7
    spaced: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(
            self, threshold=(0.0, 1.0), entropy_bound=(0.0, None), block_size=(0, None), greedy_below=(0.0, 1.0)
        )
        check_bounds(self, refine_rounds=(0, None), remask_fraction=(0.01, 1.0))
        if self.remask_fraction != 0.7 and not self.refine_rounds:
            raise UserError(
                f"sampler.remask_fraction={self.remask_fraction:g} has no effect without sampler.refine_rounds."
            )

    def build(self) -> Sampler:
        from ..samplers.unmasking import Unmasking as Built

        return Built(
            self.order,
            threshold=self.threshold,
            bound=self.entropy_bound,
            block=self.block_size,
            greedy=self.greedy_below,
            rounds=self.refine_rounds,
            again=self.remask_fraction,
            spread=self.spaced,
        )


@dataclass(frozen=True)
class FirstHitting(SamplerPart):
    """Masks one by one, each at the time at which the reverse process reveals it (0 steps: as many as tokens)."""

    fewest: ClassVar[int] = 0
    steps: int = 0

    def build(self) -> Sampler:
        from ..samplers.first_hitting import FirstHitting as Built

        return Built()


@dataclass(frozen=True)
class ReMDM(SamplerPart, name="remdm"):
    """Ancestral sampling of masked models that takes tokens back (ReMDM).

    `eta` is the chance of a token to be masked again in a step, at most (`rule` cap, and loop while it lasts), or as a
    share of what is possible (rescale; confidence, which takes back doubtful tokens first). `loop` holds the share of
    tokens at `alpha` while the share of steps left falls from `on` to `off`.
    """

    rule: Literal["cap", "rescale", "confidence", "loop"] = "cap"
    eta: float = 0.02
    alpha: float = 0.9
    on: float = 0.55
    off: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, 1.0), alpha=(0.01, 0.99), on=(0.0, 1.0), off=(0.0, self.on))
        if self.rule != "loop" and (self.alpha, self.on, self.off) != (0.9, 0.55, 0.05):
            raise UserError("sampler.alpha, sampler.on and sampler.off have no effect without sampler.rule=loop.")

    def build(self) -> Sampler:
        from ..samplers.remasking import ReMDM as Built

        return Built(self.rule, self.eta, alpha=self.alpha, on=self.on, off=self.off)


@dataclass(frozen=True)
class PathPlanning(SamplerPart, name="p2"):
    """Every step writes all masks and keeps the surest tokens (P2); with a larger `eta` it takes back more of them."""

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, None))

    def build(self) -> Sampler:
        from ..samplers.remasking import PathPlanning as Built

        return Built(self.eta)


@dataclass(frozen=True)
class PredictorCorrector(SamplerPart):
    """Ancestral sampling in which each place is noised afresh with the chance 1 - `kappa` (psi-samplers)."""

    kappa: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, kappa=(0.0, 1.0))

    def build(self) -> Sampler:
        from ..samplers.correctors import PredictorCorrector as Built

        return Built(self.kappa)


@dataclass(frozen=True)
class Gibbs(SamplerPart):
    """Ancestral sampling of uniform noise; after each step `corrections` calls draw `places` afresh given the rest."""

    corrections: int = 1
    positions: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, corrections=(1, None), positions=(1, None))

    def build(self) -> Sampler:
        from ..samplers.correctors import Gibbs as Built

        return Built(self.corrections, self.positions)
