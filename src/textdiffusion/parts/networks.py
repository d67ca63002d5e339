"""Denoisers and their readouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import UserError
from .base import DenoiserPart, ReadoutPart, check_bounds, expect

if TYPE_CHECKING:
    from torch import nn

    from ..diffusion.absorbing import AbsorbingProcess
    from ..diffusion.codecs import Codec
    from ..networks.backbone import Backbone as BuiltTrunk
    from ..networks.embedding import NgramOffsets, NgramTables


@dataclass(frozen=True)
class NgramDenoiserConfig(DenoiserPart):
    """A network of token ids. Groups of up to `context_size` neighbouring tokens are looked up in tables of at most
    `context_rows` rows of `context_dim` (0: none)."""

    ngram_dim: int = 0
    ngram_size: int = 3
    ngram_rows: int = 1 << 14

    def __post_init__(self) -> None:
        check_bounds(self, ngram_dim=(0, None), ngram_size=(2, 4), ngram_rows=(1, None))

    def tables(self, contexts: NgramOffsets) -> NgramTables | None:
        """Which of the groups `contexts` are looked up."""
        from ..networks.embedding import NgramTables

        return NgramTables(contexts, self.ngram_dim, self.ngram_size, self.ngram_rows) if self.ngram_dim else None


def _told(process: AbsorbingProcess, time: bool) -> AbsorbingProcess:
    """The process, unless what it would tell a network is never asked for."""
    if process.time_input == "sigma" and not time:
        raise UserError("process.time_input=sigma has no effect without denoiser.time; set that to true.")
    return process


def _listening(part: DenoiserPart, backbone: BuiltTrunk) -> BuiltTrunk:
    """The trunk, which must hear of the noise level that the part tells it."""
    if backbone.modulation == "none":
        raise UserError(f"{type(part).__name__} tells the trunk the noise level; set backbone.modulation=film.")
    return backbone


@dataclass(frozen=True)
class MaskDenoiserConfig(NgramDenoiserConfig):
    """Token ids in, logits over real tokens out; `time` tells the network the noise level, which it can see itself."""

    time: bool = False

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.absorbing import AbsorbingProcess
        from ..networks.embedding import AROUND
        from ..networks.token_denoiser import TokenDenoiser

        process = _told(expect(self, process, AbsorbingProcess), self.time)
        if self.time and backbone.modulation == "none":
            raise UserError("denoiser.time has no effect on a trunk without modulation; set backbone.modulation=adaln.")
        return TokenDenoiser(backbone, process, time=self.time, tables=self.tables(AROUND))


@dataclass(frozen=True)
class BlockDenoiserConfig(NgramDenoiserConfig):
    """Every block from itself and those before it; its tables do not see later blocks."""

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.blocks import BlockProcess
        from ..networks.block_denoiser import BlockDenoiser
        from ..networks.embedding import AROUND
        from ..networks.transformer import Transformer

        backbone = expect(self, backbone, Transformer)
        if backbone.conv_radius:
            raise UserError(
                f"trunk.conv_radius is {backbone.conv_radius}, but blocks do not see features of others; set it to 0."
            )
        process = expect(self, process, BlockProcess)
        return BlockDenoiser(backbone, process, tables=self.tables(AROUND))


@dataclass(frozen=True)
class TokenDenoiserConfig(NgramDenoiserConfig):
    """Token ids, any of which may be noise, and the noise level in, logits out."""

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.process import TokenNoiseProcess
        from ..networks.embedding import AROUND
        from ..networks.token_denoiser import TokenDenoiser

        process = expect(self, process, TokenNoiseProcess)
        return TokenDenoiser(_listening(self, backbone), process, time=True, tables=self.tables(AROUND))


@dataclass(frozen=True)
class ScoreDenoiserConfig(NgramDenoiserConfig):
    """Token ids in, ratios of probabilities out (SEDD); `time` as for MaskedTokens.

    `scale_by_sigma` divides the ratios of masks by how they grow as noise falls, which the network need not learn then.
    """

    scale_by_sigma: bool = True
    time: bool = True

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.absorbing import AbsorbingProcess
        from ..diffusion.uniform import UniformProcess
        from ..networks.embedding import AROUND
        from ..networks.score_denoiser import ScoreDenoiser

        if not isinstance(process, UniformProcess):
            process = _told(expect(self, process, AbsorbingProcess), self.time)
        elif self.scale_by_sigma:
            raise UserError("denoiser.scale_by_sigma is for the ratios of masks; set it to false for uniform noise.")
        if self.time != (backbone.modulation != "none"):
            raise UserError(
                f"denoiser.time is {self.time}, but backbone.modulation is {backbone.modulation}: one needs the other."
            )
        return ScoreDenoiser(backbone, process, time=self.time, tables=self.tables(AROUND), scaled=self.scale_by_sigma)


@dataclass(frozen=True)
class NextTokenDenoiserConfig(NgramDenoiserConfig):
    """Every token from those before it, and its tables from groups of these."""

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.autoregressive import AutoregressiveProcess
        from ..networks.embedding import BEFORE
        from ..networks.token_denoiser import NextTokenDenoiser
        from ..networks.transformer import Transformer

        process = expect(self, process, AutoregressiveProcess)
        backbone = expect(self, backbone, Transformer)
        if backbone.modulation != "none":
            raise UserError(
                f"backbone.modulation is {backbone.modulation}, but NextTokens has no time input; set it to none."
            )
        return NextTokenDenoiser(backbone, process, tables=self.tables(BEFORE))


@dataclass(frozen=True)
class X0Logits(ReadoutPart):
    """Logits over the tokens; `prior` adds the noisy state's own evidence to them."""

    prior: bool = True

    def build(self, width: int, codec: Codec) -> nn.Module:
        from ..diffusion.codecs import TableCodec
        from ..networks.output_heads import X0LogitsHead

        return X0LogitsHead(width, expect(self, codec, TableCodec), prior=self.prior)


@dataclass(frozen=True)
class X0Regression(ReadoutPart):
    """The clean state; tokens are read from it by rounding.

    `interpolated`: sampling and evaluation go on with the mean of those tokens instead of the regressed state. `bias`
    is what rounding learns where cross-entropy is part of the loss.
    """

    preconditioning: Literal["none", "karras", "tanh", "evidence"] = "none"
    mean_from_logits: bool = False
    bias: bool = True

    def build(self, width: int, codec: Codec) -> nn.Module:
        from ..diffusion.codecs import TableCodec
        from ..networks.output_heads import X0RegressionHead

        codec = expect(self, codec, TableCodec)
        return X0RegressionHead(
            width, codec, preconditioning=self.preconditioning, interpolated=self.mean_from_logits, bias=self.bias
        )


@dataclass(frozen=True)
class BitLogits(ReadoutPart):
    """Log odds of each bit of a code word; `prior` adds the noisy bit's own evidence to them."""

    prior: bool = True

    def build(self, width: int, codec: Codec) -> nn.Module:
        from ..diffusion.codecs import BitCodec
        from ..networks.output_heads import BitLogitsHead

        return BitLogitsHead(width, expect(self, codec, BitCodec), prior=self.prior)


@dataclass(frozen=True)
class EmbeddingDenoiserConfig(DenoiserPart):
    """Noisy vectors, given tokens and self-conditioning in, a prediction about the clean ones out.

    `decoded` shows the network the tokens which each noisy state suggests by itself.
    """

    output_head: ReadoutPart = X0Logits()
    decode_input: bool = False
    self_conditioning: bool = True
    """Half of the training rows see the model's own first estimate, as every step of sampling and evaluation does."""

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.codecs import TableCodec
        from ..diffusion.gaussian import GaussianProcess
        from ..networks.embedding_denoiser import EmbeddingDenoiser

        codec = expect(self, codec, TableCodec)
        backbone, process = _listening(self, backbone), expect(self, process, GaussianProcess)
        readout = self.output_head.build(backbone.width, codec)
        return EmbeddingDenoiser(
            backbone,
            process,
            codec,
            readout=readout,
            decoded=self.decode_input,
            self_conditioning=self.self_conditioning,
        )


@dataclass(frozen=True)
class SimplexDenoiserConfig(DenoiserPart):
    """Noisy simplices in as soft tokens, a prediction about the clean ones out.

    A state is read as the softmax of what the paper's would be (`shrunken`), or by Bayes' rule.
    """

    output_head: ReadoutPart = X0Logits()
    reading: Literal["shrunken", "bayes"] = "shrunken"
    self_conditioning: bool = True

    def build(self, backbone: BuiltTrunk, codec: Codec, process: nn.Module) -> nn.Module:
        from ..diffusion.codecs import SimplexCodec
        from ..diffusion.gaussian import GaussianProcess
        from ..networks.simplex_denoiser import SimplexDenoiser

        codec = expect(self, codec, SimplexCodec)
        backbone, process = _listening(self, backbone), expect(self, process, GaussianProcess)
        readout = self.output_head.build(backbone.width, codec)
        return SimplexDenoiser(
            backbone, process, codec, readout=readout, reading=self.reading, self_conditioning=self.self_conditioning
        )
