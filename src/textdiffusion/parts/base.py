"""The kinds of parts, and how they refuse what does not fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ..core.errors import UserError
from ..core.registry import Part as Part
from ..core.registry import check_bounds as check_bounds

if TYPE_CHECKING:
    from torch import nn

    from ..samplers.base import Guide, Run, Sampler

T = TypeVar("T")




@dataclass(frozen=True)
class SamplerPart(Part, ABC):
    """The sampler a model is meant for, and its `steps` (0, where that may be: as many as tokens)."""

    fewest: ClassVar[int] = 1

    steps: int = 64

    def __post_init__(self) -> None:
        check_bounds(self, steps=(self.fewest, None))

    @abstractmethod
    def build(self) -> Sampler: ...


class GuidePart(Part, ABC):
    """Something that steers sampling. Not of a configuration: it is asked for when sampling."""

    @abstractmethod
    def bind(self, run: Run) -> Guide: ...


def expect(part: Part, given: object, kind: type[T]) -> T:
    """`given` as the kind that `part` works with. Raises UserError where the parts of a configuration do not fit."""
    if not isinstance(given, kind):
        raise UserError(f"{type(part).__name__} works with {kind.__name__}, not with {type(given).__name__}.")
    return given
