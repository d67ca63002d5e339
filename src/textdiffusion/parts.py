"""Settings of every part of a model: frozen dataclasses that know how to build their part.

No torch here: `--help` and `config.json` read these. A part's class name is its `kind` on disk, so a new part is a new
class and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from .errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from .codecs import Codec
    from .networks.transformer import Transformer
    from .processes.schedules import MaskSchedule, NoiseSchedule
    from .samplers.step import Sampler

T = TypeVar("T")


class Part:
    """Settings of one part. Subclasses are found by name when a configuration is read."""

    kinds: ClassVar[dict[str, type[Part]]] = {}

    def __init_subclass__(cls) -> None:
        Part.kinds[cls.__name__] = cls


class CodecPart(Part):
    """How tokens become states."""

    def build(self, vocab: int) -> nn.Module:
        raise NotImplementedError


class ProcessPart(Part):
    """How states are corrupted."""

    def build(self, codec: Codec) -> nn.Module:
        raise NotImplementedError


class DensityPart(Part):
    """Which noise levels training sees."""

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        raise NotImplementedError


class DenoiserPart(Part):
    """The network with its parameterisation."""

    def build(self, trunk: Transformer, codec: Codec, process: nn.Module) -> nn.Module:
        raise NotImplementedError


class LossPart(Part):
    """An objective or a likelihood."""

    def build(self) -> nn.Module:
        raise NotImplementedError


class SamplerPart(Part):
    """The sampler a model is meant for."""

    def build(self) -> Sampler:
        raise NotImplementedError


def fitting(part: Part, given: object, kind: type[T]) -> T:
    """`given` as the kind that `part` works with. Raises UserError where the parts of a configuration do not fit."""
    if not isinstance(given, kind):
        raise UserError(f"{type(part).__name__} works with {kind.__name__}, not with {type(given).__name__}.")
    return given


def bounded(part: Part, **limits: tuple[int | float, int | float | None]) -> None:
    """Raises UserError where a field of `part` is outside its limits (None: no upper limit)."""
    for name, (low, high) in limits.items():
        value = getattr(part, name)
        if value < low or (high is not None and value > high):
            allowed = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
            raise UserError(f"{type(part).__name__}.{name} is {value:g}; it must be {allowed}.")


@dataclass(frozen=True)
class Tokens(CodecPart):
    """States are token ids."""

    def build(self, vocab: int) -> nn.Module:
        from .codecs.tokens import TokenCodec

        return TokenCodec(vocab)


@dataclass(frozen=True)
class Embeddings(CodecPart):
    """States are learned vectors of root mean square 1 (L2-normalised, times sqrt(dim))."""

    dim: int = 64
    init_std: float = 1e-3

    def __post_init__(self) -> None:
        bounded(self, dim=(1, None), init_std=(1e-9, None))

    def build(self, vocab: int) -> nn.Module:
        import torch

        from .codecs.table import TableCodec

        return TableCodec(torch.randn(vocab, self.dim) * self.init_std, learned=True, normalise=True)


@dataclass(frozen=True)
class Absorbing(ProcessPart):
    """Tokens become masks."""

    schedule: Literal["linear", "log_linear", "cosine"] = "linear"

    def build(self, codec: Codec) -> nn.Module:
        from .processes.absorbing import AbsorbingProcess
        from .processes.schedules import CosineMask, LogLinear

        schedules: dict[str, MaskSchedule] = {
            "linear": LogLinear(eps=0.0),
            "log_linear": LogLinear(),
            "cosine": CosineMask(),
        }
        return AbsorbingProcess(codec.vocab, schedules[self.schedule])


@dataclass(frozen=True)
class LeftToRightOrder(ProcessPart):
    """Tokens become masks from the right."""

    def build(self, codec: Codec) -> nn.Module:
        from .processes.left_to_right import LeftToRightProcess

        return LeftToRightProcess(codec.vocab)


@dataclass(frozen=True)
class Gaussian(ProcessPart):
    """Vectors get noise. The range of sigma is in units of the norm of a clean state (specs: continuous 8.1)."""

    schedule: Literal["log_sigma", "linear_sigma", "karras", "cosine", "sqrt", "linear_beta"] = "log_sigma"
    low: float = 0.05
    high: float = 20.0

    def __post_init__(self) -> None:
        bounded(self, low=(1e-6, None), high=(self.low * 1.001, None))

    def build(self, codec: Codec) -> nn.Module:
        from .codecs.table import TableCodec
        from .processes import schedules as s
        from .processes.gaussian import GaussianProcess

        codec = fitting(self, codec, TableCodec)
        norm = codec.norm
        low, high = self.low * norm, self.high * norm
        made: dict[str, NoiseSchedule] = {
            "log_sigma": s.LogSigma(low, high),
            "linear_sigma": s.Karras(low, high, rho=1.0),
            "karras": s.Karras(low, high),
            "cosine": s.CosineNoise(low, high),
            "sqrt": s.SqrtNoise(low, high),
            "linear_beta": s.LinearBeta(low, high),
        }
        return GaussianProcess(made[self.schedule])


@dataclass(frozen=True)
class Uniform(DensityPart):
    """All t alike."""

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from .processes.densities import UniformDensity

        return UniformDensity()


@dataclass(frozen=True)
class Gumbel(DensityPart):
    """The slope of a Gumbel curve in ln sigma, refitted to the training losses.

    It starts where a token without context loses half of its information: at `half` norms of a clean state.
    """

    half: float = 0.43
    scale: float = 0.46
    uniform: float = 0.1

    def __post_init__(self) -> None:
        bounded(self, half=(1e-6, None), scale=(1e-3, None), uniform=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        import math

        from .codecs.table import TableCodec
        from .processes.densities import GumbelDensity
        from .processes.gaussian import GaussianProcess
        from .processes.schedules import LogSigma

        codec = fitting(self, codec, TableCodec)
        process = fitting(self, process, GaussianProcess)
        schedule = fitting(self, process.schedule, LogSigma)  # the curve's shape is one in ln sigma
        span = math.log(schedule.high / schedule.low)
        mu = math.log(self.half * codec.norm / schedule.low) / span
        return GumbelDensity(mu, self.scale / span, math.log(codec.vocab), self.uniform)


@dataclass(frozen=True)
class PiecewiseLinear(DensityPart):
    """CDCD's time warping."""

    bins: int = 100
    uniform: float = 0.0

    def __post_init__(self) -> None:
        bounded(self, bins=(1, None), uniform=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from .processes.densities import PiecewiseDensity

        return PiecewiseDensity(self.bins, self.uniform)


@dataclass(frozen=True)
class Trunk(Part):
    """The transformer. Heads are 64 wide."""

    width: int = 128
    depth: int = 4
    expansion: int = 4
    conditioning: int = 128
    modulation: Literal["none", "adaln", "film"] = "none"
    activation: Literal["relu2", "gelu"] = "relu2"
    qk_norm: bool = True
    bias: bool = False
    norm_weight: bool = False
    dropout: float = 0.0
    absolute: bool = True
    recompute: bool = False

    def __post_init__(self) -> None:
        bounded(self, depth=(1, None), expansion=(1, None), conditioning=(1, None), dropout=(0.0, 0.99))
        if self.width < 2 or self.width % (64 if self.width > 64 else 2):
            raise UserError(f"trunk.width is {self.width}; it must be a multiple of 64, or even and below 64.")

    def build(self) -> Transformer:
        from dataclasses import asdict

        from .networks.transformer import Transformer

        return Transformer(**asdict(self))


@dataclass(frozen=True)
class MaskedTokens(DenoiserPart):
    """Token ids in, logits over real tokens out.

    `time` tells the network the noise level, which it can count itself. Groups of up to `context_size` neighbouring
    tokens are looked up in tables of `context_rows` rows of `context_dim` (0: none).
    """

    time: bool = False
    context_dim: int = 0
    context_size: int = 3
    context_rows: int = 1 << 14

    def build(self, trunk: Transformer, codec: Codec, process: nn.Module) -> nn.Module:
        from .networks.denoisers import TokenDenoiser
        from .networks.embedding import AROUND, Tables
        from .processes.absorbing import AbsorbingProcess

        process = fitting(self, process, AbsorbingProcess)
        if self.time and trunk.modulation == "none":
            raise UserError("denoiser.time has no effect on a trunk without modulation; set trunk.modulation=adaln.")
        tables = Tables(AROUND, self.context_dim, self.context_size, self.context_rows)
        return TokenDenoiser(trunk, process, time=self.time, tables=tables if self.context_dim else None)


@dataclass(frozen=True)
class NextTokens(DenoiserPart):
    """Every token from those before it; tables as for MaskedTokens, of groups of tokens before."""

    context_dim: int = 0
    context_size: int = 3
    context_rows: int = 1 << 14

    def build(self, trunk: Transformer, codec: Codec, process: nn.Module) -> nn.Module:
        from .networks.denoisers import NextTokenDenoiser
        from .networks.embedding import BEFORE, Tables
        from .processes.left_to_right import LeftToRightProcess

        process = fitting(self, process, LeftToRightProcess)
        if trunk.modulation != "none":
            raise UserError(
                f"trunk.modulation is {trunk.modulation}, but NextTokens has no time input; set it to none."
            )
        tables = Tables(BEFORE, self.context_dim, self.context_size, self.context_rows)
        return NextTokenDenoiser(trunk, process, tables=tables if self.context_dim else None)


@dataclass(frozen=True)
class NoisyStates(DenoiserPart):
    """Noisy vectors, given tokens and self-conditioning in, logits out.

    `prior` adds the state's own evidence to the logits; `decoded` shows the network the tokens which that evidence
    suggests.
    """

    prior: bool = True
    decoded: bool = False
    self_conditioning: bool = True
    """Half of the training rows see the model's own first estimate, as every step of sampling and evaluation does."""

    def build(self, trunk: Transformer, codec: Codec, process: nn.Module) -> nn.Module:
        from .codecs.table import TableCodec
        from .networks.denoisers import StateDenoiser
        from .processes.gaussian import GaussianProcess

        codec = fitting(self, codec, TableCodec)
        process = fitting(self, process, GaussianProcess)
        return StateDenoiser(
            trunk, process, codec, prior=self.prior, decoded=self.decoded, self_conditioning=self.self_conditioning
        )


@dataclass(frozen=True)
class MaskedBound(LossPart):
    """The masked bound, its weight cut at `max_weight` in training (0: never)."""

    max_weight: float = 3.0

    def __post_init__(self) -> None:
        bounded(self, max_weight=(0.0, None))

    def build(self) -> nn.Module:
        from .objectives.masked_bound import MaskedBound as Built

        return Built(self.max_weight or None)


@dataclass(frozen=True)
class MaskedLikelihood(LossPart):
    """The masked bound with exactly k masks, for evaluation."""

    def build(self) -> nn.Module:
        from .objectives.masked_bound import MaskedLikelihood as Built

        return Built()


@dataclass(frozen=True)
class ScoreInterpolation(LossPart):
    """Cross-entropy at noised positions."""

    def build(self) -> nn.Module:
        from .objectives.score_interpolation import ScoreInterpolation as Built

        return Built()


@dataclass(frozen=True)
class GaussianLikelihood(LossPart):
    """The bound of Gaussian processes, for evaluation."""

    def build(self) -> nn.Module:
        from .objectives.gaussian_bound import GaussianLikelihood as Built

        return Built()


@dataclass(frozen=True)
class NextToken(LossPart):
    """Cross-entropy of the next token."""

    def build(self) -> nn.Module:
        from .objectives.next_token import NextToken as Built

        return Built()


@dataclass(frozen=True)
class NextTokenLikelihood(LossPart):
    """The exact likelihood, left to right."""

    def build(self) -> nn.Module:
        from .objectives.next_token import NextTokenLikelihood as Built

        return Built()


@dataclass(frozen=True)
class Ancestral(SamplerPart):
    """Ancestral sampling of the absorbing process."""

    steps: int = 64

    def __post_init__(self) -> None:
        bounded(self, steps=(1, None))

    def build(self) -> Sampler:
        from .samplers.ancestral import Ancestral as Built

        return Built()


@dataclass(frozen=True)
class OneStep(SamplerPart):
    """DDIM (eta 0) to ancestral (eta 1) sampling of Gaussian processes."""

    steps: int = 64
    eta: float = 0.0

    def __post_init__(self) -> None:
        bounded(self, steps=(1, None), eta=(0.0, 1.0))

    def build(self) -> Sampler:
        from .samplers.one_step import OneStep as Built

        return Built(self.eta)


@dataclass(frozen=True)
class LeftToRight(SamplerPart):
    """One token a step (0 steps: as many as tokens)."""

    steps: int = 0

    def build(self) -> Sampler:
        from .samplers.left_to_right import LeftToRight as Built

        return Built()
