"""Denoisers of token ids: a backbone with its input, its output head and its parameterisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..core.registry import builds
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.process import TokenNoiseProcess, TokenProcess
from .attention import attention_mask
from .backbone import Backbone
from .denoiser import NgramDenoiserConfig
from .embedding import AROUND, BEFORE, NgramTables, TokenEmbedding
from .labels import LabelConditioned
from .output_heads import LinearHead, TokenPriorHead
from .transformer import Transformer


@dataclass(frozen=True)
class MaskDenoiserConfig(NgramDenoiserConfig):
    """Token ids with masks in, logits of the real tokens out.

    `time` passes the noise level to the network, which can also read it off the masks (RADD, theorem 1).
    """

    processes: ClassVar[tuple[type[nn.Module], ...]] = (AbsorbingProcess,)

    time: bool = False


@dataclass(frozen=True)
class TokenDenoiserConfig(NgramDenoiserConfig):
    """Token ids, any of which may be noise, and the noise level in, logits out."""

    processes: ClassVar[tuple[type[nn.Module], ...]] = (TokenNoiseProcess,)
    needs_noise_level: ClassVar[bool] = True


@builds(MaskDenoiserConfig)
@builds(TokenDenoiserConfig)
class TokenDenoiser(LabelConditioned):
    """For processes whose state is token ids: an embedding in, logits of the real tokens out.

    The mask has no logit (SUBS: MDLM, section 3.2.3). Without a time input the masked fraction of x_t is all that the
    network knows of t, which loses nothing (RADD, theorem 1); a backbone with modulation is then fed a constant.
    """

    def __init__(
        self,
        backbone: Backbone,
        process: TokenProcess,
        *,
        time: bool = True,
        ngram_dim: int = 0,
        ngram_size: int = 3,
        ngram_rows: int = 1 << 14,
    ) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        ngrams = NgramTables(AROUND, ngram_dim, ngram_size, ngram_rows)
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, ngrams, num_states=process.num_states)
        self.head = LinearHead(backbone.width, process.vocab_size)
        self.time_independent, self.self_conditioning = not time, False
        self.trained_with_conditioning = True
        """Training had conditioning tokens, whose noise level is 0."""

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """p(x_0 | x_t); it is meant for positions that are noised and not clean again."""
        return self.output(self.features(xt, t, batch), xt, t)

    def forward_soft(
        self, soft: Float[Tensor, "b l v"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch
    ) -> Prediction:
        """The same, with mixtures of states, `soft`, embedded instead of x_t."""
        return self.output(self.features(xt, t, batch, soft), xt, t)

    def output(self, hidden: Float[Tensor, "b l w"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Prediction:
        """The prediction that the output head makes from features."""
        evidence = self.process.self_log_odds(xt, t)
        if evidence is None:
            return LazyPrediction(hidden, self.head)
        with_evidence = torch.cat((hidden.float(), torch.stack((xt.float(), evidence), dim=-1)), dim=-1)
        return LazyPrediction(with_evidence, TokenPriorHead(self.head, hidden.dtype))

    def features(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], batch: Batch, soft: Float[Tensor, "b l v"] | None = None
    ) -> Float[Tensor, "b l w"]:
        """The backbone's features of x_t."""
        noise_level = torch.zeros_like(t) if self.time_independent else self.process.time_conditioning(t)
        # Beside masks, a conditioning token that training never had looks like one that is revealed, at the level of
        # its row. Without masks only a noise level of 0 marks it.
        marked = self.trained_with_conditioning or self.process.num_states == self.process.vocab_size
        if batch.condition_mask is not None and marked and not self.time_independent:
            by_row = noise_level if noise_level.ndim == 2 else noise_level[:, None]
            noise_level = torch.where(batch.condition_mask, 0.0, by_row)
        features = self.embedding(xt, self.process.vocab_size, batch)
        if soft is not None:
            features = features + soft @ self.embedding.tokens.weight - self.embedding.tokens(xt)
        mask = attention_mask("full", batch)
        return self.backbone(self.add_label(features, batch), noise_level, position_ids(batch), mask)


@dataclass(frozen=True)
class NextTokenDenoiserConfig(NgramDenoiserConfig):
    """Every token from those before it; n-gram tables read tokens to the left alone."""

    processes: ClassVar[tuple[type[nn.Module], ...]] = (AutoregressiveProcess,)
    backbones: ClassVar[tuple[type[nn.Module], ...]] = (Transformer,)


@builds(NextTokenDenoiserConfig)
class NextTokenDenoiser(LabelConditioned):
    """Autoregression as a denoiser: position i is predicted from the tokens before it, whatever follows."""

    time_independent = True
    self_conditioning = False

    def __init__(
        self,
        backbone: Transformer,
        process: AutoregressiveProcess,
        *,
        ngram_dim: int = 0,
        ngram_size: int = 3,
        ngram_rows: int = 1 << 14,
    ) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        ngrams = NgramTables(BEFORE, ngram_dim, ngram_size, ngram_rows)
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, ngrams)
        self.head = LinearHead(backbone.width, process.vocab_size)

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """p(x_i | x_{<i}) at every position; the mask id stands in for the token before the first."""
        positions = position_ids(batch)
        shifted = torch.where(positions == 0, self.process.mask, xt.roll(1, dims=1))
        features = self.add_label(self.embedding(shifted, self.process.mask, batch), batch)
        hidden = self.backbone(features, None, positions, attention_mask("causal", batch))
        return LazyPrediction(hidden, self.head)
