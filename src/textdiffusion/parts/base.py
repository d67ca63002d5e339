"""The kinds of parts, and how they refuse what does not fit."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ..core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from ..config.config import Config
    from ..data.tokenizers.base import Tokenizer
    from ..diffusion.codecs import Codec
    from ..diffusion.model import DiffusionModel
    from ..networks.backbone import Backbone
    from ..samplers.base import Guide, Sampler

T = TypeVar("T")


class Part:
    """Settings of one part. Subclasses are found by name when a configuration is read."""

    kinds: ClassVar[dict[str, type[Part]]] = {}

    def __init_subclass__(cls) -> None:
        Part.kinds[cls.__name__] = cls

    def check(self, config: Config) -> None:
        """Raises UserError where this part does not fit the others of its configuration."""

    def check_train(self, config: Config) -> None:
        """Raises UserError where a run of this configuration should not begin; runs that are there may have it."""

    @classmethod
    def choices(cls) -> dict[str, type]:
        """The parts that can stand where one of this class is asked for, by their `kind`, in its order."""
        kinds = sorted(Part.kinds.items())
        return {k: v for k, v in kinds if issubclass(v, cls) and is_dataclass(v) and not inspect.isabstract(v)}


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

    `packs`: it keeps the examples of a packed row apart.
    """

    packs: ClassVar[bool] = True

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
    def build(self, model: DiffusionModel, tokenizer: Tokenizer) -> Guide: ...


def expect(part: Part, given: object, kind: type[T]) -> T:
    """`given` as the kind that `part` works with. Raises UserError where the parts of a configuration do not fit."""
    if not isinstance(given, kind):
        raise UserError(f"{type(part).__name__} works with {kind.__name__}, not with {type(given).__name__}.")
    return given


def check_bounds(part: Part, **limits: tuple[int | float, int | float | None]) -> None:
    """Raises UserError where a field of `part` is outside its limits (None: no upper limit)."""
    for name, (low, high) in limits.items():
        value = getattr(part, name)
        if not value >= low or (high is not None and not value <= high):  # nan is outside too
            allowed = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
            raise UserError(f"{type(part).__name__}.{name} is {value:g}; it must be {allowed}.")


def one_a_token(part: SamplerPart, config: Config, *, more: bool = False) -> None:
    """Raises UserError unless the steps are as many as the tokens of a window, or, if they may be, more."""
    length = config.text.length
    if part.steps not in (0, length) and not (more and part.steps > length):
        raise UserError(
            f"sampler.steps is {part.steps}; {type(part).__name__} takes one for each of the {length} tokens of a "
            "window, which 0 asks for too."
        )
