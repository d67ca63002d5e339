"""Codecs and processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import UserError
from .base import CodecPart, ProcessPart, check_bounds, expect

if TYPE_CHECKING:
    from torch import nn

    from ..data.tokenizers.base import Tokenizer
    from ..diffusion.codecs import Codec
    from ..diffusion.schedules import AlphaSchedule, SigmaSchedule


Survival = Literal["linear", "log_linear", "cosine", "geometric"]


@dataclass(frozen=True)
class Tokens(CodecPart):
    """States are token ids."""

    def build(self, vocab_size: int) -> nn.Module:
        from ..diffusion.codecs import TokenCodec

        return TokenCodec(vocab_size)


@dataclass(frozen=True)
class Embeddings(CodecPart):
    """States are learned vectors of root mean square 1, unless `norm` is `none`.

    `l2` normalises their length, `layer` is a layer norm, `affine` one with a learned gain and shift. With `none` they
    begin at `init_std`, which is then the unit of noise, and move freely. They do not move unless `learned`.

    `pretrained` vectors replace the random ones when training begins: a .txt file with a token and its numbers on each
    line, a .safetensors file with one table in the order of the tokenizer, or the folder of a pretrained encoder.
    """

    dim: int = 64
    init_std: float = 1e-3
    norm: Literal["l2", "layer", "affine", "none"] = "l2"
    pretrained: str = ""
    learned: bool = True

    def __post_init__(self) -> None:
        # A centred row of one coordinate is zero, one of two has only a sign.
        check_bounds(self, dim=(1 if self.norm in ("l2", "none") else 3, None), init_std=(1e-9, None))
        if self.norm == "none" and self.learned and self.init_std < 0.1:
            raise UserError(
                f"codec.init_std is {self.init_std:g}, the unit of noise where codec.norm=none: vectors would outgrow "
                "it in a few steps, and no noise hide them. Set codec.init_std=1."
            )

    def build(self, vocab_size: int) -> nn.Module:
        import math

        import torch

        from ..diffusion.codecs import TableCodec

        unit = None if self.norm != "none" else math.sqrt(self.dim) * self.init_std
        start = torch.randn(vocab_size, self.dim) * self.init_std
        return TableCodec(start, learned=self.learned, normalise=self.norm, unit=unit)

    def load_pretrained(self, codec: nn.Module, tokenizer: Tokenizer) -> str | None:
        from pathlib import Path

        from ..diffusion.codecs import TableCodec
        from ..networks.bert import load_pretrained_embeddings

        table = expect(self, codec, TableCodec)
        return load_pretrained_embeddings(table, Path(self.pretrained), tokenizer) if self.pretrained else None


@dataclass(frozen=True)
class Bits(CodecPart):
    """States are words of ceil(log2 V) bits, -scale or +scale: the digits of the id, their Gray code, or random."""

    code: Literal["base", "gray", "random"] = "base"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, scale=(1e-6, None))

    def build(self, vocab_size: int) -> nn.Module:
        from ..diffusion.codecs import BitCodec, bits

        return BitCodec(bits(vocab_size, self.scale, self.code), self.scale)


@dataclass(frozen=True)
class Simplex(CodecPart):
    """States are almost-one-hot logits, +scale and -scale: one number per token of the vocabulary."""

    scale: float = 5.0

    def __post_init__(self) -> None:
        check_bounds(self, scale=(1e-6, None))

    def build(self, vocab_size: int) -> nn.Module:
        from ..diffusion.codecs import SimplexCodec

        return SimplexCodec(vocab_size, self.scale)


@dataclass(frozen=True)
class Absorbing(ProcessPart):
    """Tokens become masks. `level` is what a network with a time input is told: the masked share, or the total noise
    sigma = -ln(1 - share), which needs a schedule that leaves some tokens at t = 1 (SEDD)."""

    schedule: Survival = "linear"
    time_input: Literal["share", "sigma"] = "share"

    def __post_init__(self) -> None:
        if self.time_input == "sigma" and self.schedule not in ("log_linear", "geometric"):
            raise UserError(
                f"process.time_input=sigma is infinite at t = 1 of schedule={self.schedule}; use log_linear or geometric."
            )

    def build(self, codec: Codec) -> nn.Module:
        from ..diffusion.absorbing import AbsorbingProcess

        return AbsorbingProcess(codec.vocab_size, _survival(self.schedule), sigma=self.time_input == "sigma")


def _survival(schedule: Survival) -> AlphaSchedule:
    from ..diffusion.schedules import CosineMask, Geometric, LogLinear

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
class UniformNoise(ProcessPart, name="uniform"):
    """Tokens become other tokens, all alike."""

    schedule: Survival = "log_linear"

    def build(self, codec: Codec) -> nn.Module:
        from ..diffusion.uniform import UniformProcess

        return UniformProcess(codec.vocab_size, _survival(self.schedule))


@dataclass(frozen=True)
class BlockAbsorbing(ProcessPart):
    """Tokens become masks, block by block from the right; a block is `block` tokens long."""

    schedule: Survival = "linear"
    block_size: int = 16

    def __post_init__(self) -> None:
        check_bounds(self, block_size=(1, None))

    def build(self, codec: Codec) -> nn.Module:
        from ..diffusion.absorbing import AbsorbingProcess
        from ..diffusion.blocks import BlockProcess

        return BlockProcess(AbsorbingProcess(codec.vocab_size, _survival(self.schedule)), self.block_size)


@dataclass(frozen=True)
class AutoregressiveOrder(ProcessPart):
    """Tokens become masks from the right."""

    def build(self, codec: Codec) -> nn.Module:
        from ..diffusion.autoregressive import AutoregressiveProcess

        return AutoregressiveProcess(codec.vocab_size)


@dataclass(frozen=True)
class Gaussian(ProcessPart):
    """Vectors get noise. The range of sigma is in units of the norm of a clean state (specs: continuous 8.1).

    `factor` multiplies the sigma of cosine, sqrt and linear_beta, which the range then cuts (Difformer, section 3.4).
    `offset` is the c of cosine: how much noise t = 0 has.
    `learned` is linear in ln sigma, as `log_sigma` is, from a low to a high end that are learned (for PlaidBound).
    """

    schedule: Literal["log_sigma", "learned", "linear_sigma", "karras", "cosine", "sqrt", "linear_beta"] = "log_sigma"
    sigma_min: float = 0.05
    sigma_max: float = 20.0
    sigma_scale: float = 1.0
    s: float = 2e-4

    def __post_init__(self) -> None:
        check_bounds(
            self,
            sigma_min=(1e-6, None),
            sigma_max=(self.sigma_min * 1.001, None),
            sigma_scale=(1e-6, None),
            s=(1e-6, 1.0),
        )
        if self.s != 2e-4 and self.schedule != "cosine":
            raise UserError(f"process.s has no effect on schedule={self.schedule}; it is for cosine.")
        if self.sigma_scale != 1.0 and self.schedule not in ("cosine", "sqrt", "linear_beta"):
            raise UserError(
                f"process.sigma_scale has no effect on schedule={self.schedule}, only on cosine, sqrt, linear_beta."
            )

    def build(self, codec: Codec) -> nn.Module:
        from ..diffusion import schedules as s
        from ..diffusion.codecs import TableCodec
        from ..diffusion.gaussian import GaussianProcess

        codec = expect(self, codec, TableCodec)
        norm = codec.norm
        low, high = self.sigma_min * norm / self.sigma_scale, self.sigma_max * norm / self.sigma_scale
        made: dict[str, SigmaSchedule] = {
            "log_sigma": s.LogSigma(low, high),
            "learned": s.LearnedSigma(low, high),
            "linear_sigma": s.Karras(low, high, rho=1.0),
            "karras": s.Karras(low, high),
            "cosine": s.CosineNoise(low, high, self.s),
            "sqrt": s.SqrtNoise(low, high),
            "linear_beta": s.LinearBeta(low, high),
        }
        schedule = made[self.schedule]
        return GaussianProcess(schedule if self.sigma_scale == 1.0 else s.Rescaled(schedule, self.sigma_scale))


@dataclass(frozen=True)
class DiscreteGaussian(ProcessPart):
    """The discrete grid of DDPM: as many noise levels as `steps`, made of the steps' betas, in units of a clean state's
    coordinates. Training sees these alone; sampling may take fewer steps."""

    betas: Literal["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"] = "sqrt"
    steps: int = 2000

    def __post_init__(self) -> None:
        check_bounds(self, steps=(20, None))

    def build(self, codec: Codec) -> nn.Module:
        from ..diffusion.codecs import TableCodec
        from ..diffusion.gaussian import GaussianProcess
        from ..diffusion.schedules import DiscreteBetaSchedule

        codec = expect(self, codec, TableCodec)
        return GaussianProcess(DiscreteBetaSchedule(self.betas, self.steps, codec.scale), grid=self.steps)
