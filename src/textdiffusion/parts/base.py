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

    from ..data.tokenizers.base import Tokenizer
    from ..diffusion.codecs import Codec
    from ..networks.backbone import Backbone

T = TypeVar("T")


class CodecPart(Part, ABC):
    """How tokens become states."""

    @abstractmethod
    def build(self, vocab_size: int) -> nn.Module: ...

    def load_pretrained(self, codec: nn.Module, tokenizer: Tokenizer) -> str | None:
        """What only a run that begins does: reads the weights that these settings name. Returns what to say of it."""
        return None


class ProcessPart(Part, ABC):
    """How states are corrupted."""

    @abstractmethod
    def build(self, codec: Codec) -> nn.Module: ...


class DensityPart(Part, ABC):
    """Which noise levels training sees."""

    @abstractmethod
    def build(self, codec: Codec, process: nn.Module) -> nn.Module: ...


@dataclass(frozen=True)
class TrunkPart(Part, ABC):
    """The network between a denoiser's input and its output: features in, features out.

    `supports_packing`: it keeps the examples of a packed row apart.
    """

    supports_packing: ClassVar[bool] = True

    width: int = 128
    depth: int = 4

    @abstractmethod
    def build(self) -> Backbone: ...

    def load_pretrained(self, backbone: Backbone) -> str | None:
        """What only a run that begins does: reads the weights that these settings name. Returns what to say of it."""
        return None


class ReadoutPart(Part, ABC):
    """What a continuous family's network predicts."""

    @abstractmethod
    def build(self, width: int, codec: Codec) -> nn.Module: ...


class DenoiserPart(Part, ABC):
    """The network with its parameterisation."""

    @abstractmethod
    def build(self, backbone: Backbone, codec: Codec, process: nn.Module) -> nn.Module: ...


class ObjectivePart(Part, ABC):
    """What training makes small."""

    @abstractmethod
    def build(self) -> nn.Module: ...


class LikelihoodPart(Part, ABC):
    """What a text is evaluated by, exact or a bound."""

    @abstractmethod
    def build(self) -> nn.Module: ...


def expect(part: Part, given: object, kind: type[T]) -> T:
    """`given` as the kind that `part` works with. Raises UserError where the parts of a configuration do not fit."""
    if not isinstance(given, kind):
        raise UserError(f"{type(part).__name__} works with {kind.__name__}, not with {type(given).__name__}.")
    return given
