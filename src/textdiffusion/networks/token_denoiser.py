"""Denoisers of token ids: a backbone with its input, its output head and its parameterisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.batch import Batch
from ..core.registry import builds
from ..core.types import Hidden, NoiseTimes, Probs, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.process import TokenProcess
from ..diffusion.token_noise import TokenNoiseProcess
from ..diffusion.wave import WaveProcess
from .backbone import Backbone
from .denoiser import LabelConditioned, NgramDenoiserConfig
from .embedding import AROUND, TokenEmbedding
from .heads import LinearHead, TokenPriorHead


@dataclass(frozen=True)
class MaskDenoiserConfig(NgramDenoiserConfig):
    """Token ids with masks in, logits of the real tokens out.

    `time` passes the noise level to the network, which can also read it off the masks (RADD, theorem 1).
    """

    processes: ClassVar = (AbsorbingProcess, WaveProcess)

    time: bool = False


@dataclass(frozen=True)
class TokenDenoiserConfig(NgramDenoiserConfig):
    """Token ids, any of which may be noise, and the noise level in, logits out."""

    processes: ClassVar = (TokenNoiseProcess,)
    needs_noise_level: ClassVar = True


@builds(MaskDenoiserConfig)
@builds(TokenDenoiserConfig)
class TokenDenoiser(LabelConditioned):
    """For processes whose state is token ids: an embedding in, logits of the real tokens out.

    The mask has no logit (SUBS: MDLM, section 3.2.3). Without a time input the masked fraction of x_t is all that the
    network knows of t, which loses nothing (RADD, theorem 1); a backbone with modulation is then fed a constant.
    """

    def __init__(
        self, backbone: Backbone, process: TokenProcess, config: NgramDenoiserConfig, *, time: bool = True
    ) -> None:
        super().__init__()
        self.backbone, self.process, vocab_size = backbone, process, process.vocab_size
        self.embedding = TokenEmbedding(vocab_size + 1, backbone.width, config, AROUND, process.num_states)
        self.head = LinearHead(backbone.width, vocab_size)
        self.time_independent, self.self_conditioning = not time, False
        self.trained_with_conditioning = True
        """Training had conditioning tokens, whose noise level is 0."""

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """p(x_0 | x_t); it is meant for positions that are noised and not clean again."""
        return self.output(self.features(xt, t, batch), xt, t)

    def forward_soft(self, soft: Probs, xt: Tokens, t: NoiseTimes, *, batch: Batch) -> Prediction:
        """The same, with mixtures of states, `soft`, embedded instead of x_t."""
        return self.output(self.features(xt, t, batch, soft), xt, t)

    def output(self, hidden: Hidden, xt: Tokens, t: NoiseTimes) -> Prediction:
        """The prediction that the output head makes from features."""
        evidence = self.process.self_log_odds(xt, t)
        if evidence is None:
            return LazyPrediction(hidden, self.head)
        with_evidence = torch.cat((hidden.float(), torch.stack((xt.float(), evidence), dim=-1)), dim=-1)
        return LazyPrediction(with_evidence, TokenPriorHead(self.head, hidden.dtype))

    def features(self, xt: Tokens, t: NoiseTimes, batch: Batch, soft: Probs | None = None) -> Hidden:
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
        return self.run_backbone(features, noise_level, batch)
