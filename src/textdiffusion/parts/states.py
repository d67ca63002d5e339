"""Codecs, processes and noise densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import UserError
from .base import CodecPart, DensityPart, ProcessPart, bounded, fitting

if TYPE_CHECKING:
    from torch import nn

    from ..codecs import Codec
    from ..processes.schedules import MaskSchedule, NoiseSchedule


Survival = Literal["linear", "log_linear", "cosine", "geometric"]


@dataclass(frozen=True)
class Tokens(CodecPart):
    """States are token ids."""

    def build(self, vocab: int) -> nn.Module:
        from ..codecs.tokens import TokenCodec

        return TokenCodec(vocab)


@dataclass(frozen=True)
class Embeddings(CodecPart):
    """States are learned vectors of root mean square 1.

    `l2` normalises their length, `layer` is a layer norm, `affine` one with a learned gain and shift.
    """

    dim: int = 64
    init_std: float = 1e-3
    norm: Literal["l2", "layer", "affine"] = "l2"

    def __post_init__(self) -> None:
        # A centred row of one coordinate is zero, one of two has only a sign.
        bounded(self, dim=(1 if self.norm == "l2" else 3, None), init_std=(1e-9, None))

    def build(self, vocab: int) -> nn.Module:
        import torch

        from ..codecs.table import TableCodec

        return TableCodec(torch.randn(vocab, self.dim) * self.init_std, learned=True, normalise=self.norm)


@dataclass(frozen=True)
class Bits(CodecPart):
    """States are words of ceil(log2 V) bits, -scale or +scale: the digits of the id, their Gray code, or random."""

    code: Literal["base", "gray", "random"] = "base"
    scale: float = 1.0

    def __post_init__(self) -> None:
        bounded(self, scale=(1e-6, None))

    def build(self, vocab: int) -> nn.Module:
        from ..codecs.table import BitCodec, bits

        return BitCodec(bits(vocab, self.scale, self.code), self.scale)


@dataclass(frozen=True)
class Absorbing(ProcessPart):
    """Tokens become masks. `level` is what a network with a time input is told: the masked share, or the total noise
    sigma = -ln(1 - share), which needs a schedule that leaves some tokens at t = 1 (SEDD)."""

    schedule: Survival = "linear"
    level: Literal["share", "sigma"] = "share"

    def __post_init__(self) -> None:
        if self.level == "sigma" and self.schedule not in ("log_linear", "geometric"):
            raise UserError(
                f"process.level=sigma is infinite at t = 1 of schedule={self.schedule}; use log_linear or geometric."
            )

    def build(self, codec: Codec) -> nn.Module:
        from ..processes.absorbing import AbsorbingProcess

        return AbsorbingProcess(codec.vocab, _survival(self.schedule), sigma=self.level == "sigma")


def _survival(schedule: Survival) -> MaskSchedule:
    from ..processes.schedules import CosineMask, Geometric, LogLinear

    match schedule:
        case "linear":
            return LogLinear(eps=0.0)
        case "log_linear":
            return LogLinear()
        case "cosine":
            return CosineMask()
        case "geometric":
            return Geometric()


@dataclass(frozen=True)
class UniformNoise(ProcessPart):
    """Tokens become other tokens, all alike."""

    schedule: Survival = "log_linear"

    def build(self, codec: Codec) -> nn.Module:
        from ..processes.uniform import UniformProcess

        return UniformProcess(codec.vocab, _survival(self.schedule))


@dataclass(frozen=True)
class AbsorbingBlocks(ProcessPart):
    """Tokens become masks, block by block from the right; a block is `block` tokens long."""

    schedule: Survival = "linear"
    block: int = 16

    def __post_init__(self) -> None:
        bounded(self, block=(1, None))

    def build(self, codec: Codec) -> nn.Module:
        from ..processes.absorbing import AbsorbingProcess
        from ..processes.blocks import BlockProcess

        return BlockProcess(AbsorbingProcess(codec.vocab, _survival(self.schedule)), self.block)


@dataclass(frozen=True)
class LeftToRightOrder(ProcessPart):
    """Tokens become masks from the right."""

    def build(self, codec: Codec) -> nn.Module:
        from ..processes.left_to_right import LeftToRightProcess

        return LeftToRightProcess(codec.vocab)


@dataclass(frozen=True)
class Gaussian(ProcessPart):
    """Vectors get noise. The range of sigma is in units of the norm of a clean state (specs: continuous 8.1).

    `factor` multiplies the sigma of cosine, sqrt and linear_beta, which the range then cuts (Difformer, section 3.4).
    """

    schedule: Literal["log_sigma", "linear_sigma", "karras", "cosine", "sqrt", "linear_beta"] = "log_sigma"
    low: float = 0.05
    high: float = 20.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        bounded(self, low=(1e-6, None), high=(self.low * 1.001, None), factor=(1e-6, None))
        if self.factor != 1.0 and self.schedule in ("log_sigma", "linear_sigma", "karras"):
            raise UserError(f"process.factor has no effect on schedule={self.schedule}: its low and high say it all.")

    def build(self, codec: Codec) -> nn.Module:
        from ..codecs.table import TableCodec
        from ..processes import schedules as s
        from ..processes.gaussian import GaussianProcess

        codec = fitting(self, codec, TableCodec)
        norm = codec.norm
        low, high = self.low * norm / self.factor, self.high * norm / self.factor
        made: dict[str, NoiseSchedule] = {
            "log_sigma": s.LogSigma(low, high),
            "linear_sigma": s.Karras(low, high, rho=1.0),
            "karras": s.Karras(low, high),
            "cosine": s.CosineNoise(low, high),
            "sqrt": s.SqrtNoise(low, high),
            "linear_beta": s.LinearBeta(low, high),
        }
        schedule = made[self.schedule]
        return GaussianProcess(schedule if self.factor == 1.0 else s.Rescaled(schedule, self.factor))


@dataclass(frozen=True)
class Uniform(DensityPart):
    """All t alike, or all from `low` to `high`, and training sees no other (its figures are then of these alone)."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        bounded(self, low=(0.0, 0.99), high=(self.low + 0.01, 1.0))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from ..processes.densities import UniformDensity

        return UniformDensity(self.low, self.high)


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

        from ..codecs.table import TableCodec
        from ..processes.densities import GumbelDensity
        from ..processes.gaussian import GaussianProcess
        from ..processes.schedules import LogSigma

        codec = fitting(self, codec, TableCodec)
        process = fitting(self, process, GaussianProcess)
        schedule = fitting(self, process.schedule, LogSigma)  # the curve's shape is one in ln sigma
        span = math.log(schedule.high / schedule.low)
        mu = math.log(self.half * codec.norm / schedule.low) / span
        return GumbelDensity(mu, self.scale / span, math.log(codec.vocab), self.uniform)


@dataclass(frozen=True)
class Cauchy(DensityPart):
    """The slope of an arctan curve, refitted to the training losses (mini CDCD).

    It starts at a half-way point `half` and a half-width `scale`, in norms of a clean state.
    """

    half: float = 0.43
    scale: float = 0.2
    uniform: float = 0.1

    def __post_init__(self) -> None:
        bounded(self, half=(1e-6, None), scale=(1e-6, None), uniform=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        import math

        import torch

        from ..codecs.table import TableCodec
        from ..processes.densities import CauchyDensity
        from ..processes.gaussian import GaussianProcess

        codec = fitting(self, codec, TableCodec)
        schedule = fitting(self, process, GaussianProcess).schedule
        # In numbers, as a configuration may be built on the meta device.
        sigma = torch.tensor((self.half, self.half + self.scale), device="cpu") * codec.norm
        half, beyond = schedule.time(sigma).tolist()
        return CauchyDensity(half, beyond - half, math.log(codec.vocab), self.uniform)


@dataclass(frozen=True)
class PiecewiseLinear(DensityPart):
    """CDCD's time warping."""

    bins: int = 100
    uniform: float = 0.0

    def __post_init__(self) -> None:
        bounded(self, bins=(1, None), uniform=(0.0, 0.99))

    def build(self, codec: Codec, process: nn.Module) -> nn.Module:
        from ..processes.densities import PiecewiseDensity

        return PiecewiseDensity(self.bins, self.uniform)
