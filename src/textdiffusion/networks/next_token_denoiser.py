"""The denoiser of autoregression: each token from those before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.batch import Batch, position_ids
from ..core.registry import builds
from ..core.types import NoiseTimes, Tokens
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from .attention import attention_mask
from .denoiser import LabelConditioned, NgramDenoiserConfig
from .embedding import BEFORE, TokenEmbedding
from .heads import LinearHead
from .transformer import Transformer


@dataclass(frozen=True)
class NextTokenDenoiserConfig(NgramDenoiserConfig):
    """Every token from those before it; n-gram tables read tokens to the left alone."""

    processes: ClassVar = (AutoregressiveProcess,)
    backbones: ClassVar = (Transformer,)


@builds(NextTokenDenoiserConfig)
class NextTokenDenoiser(LabelConditioned):
    """Autoregression as a denoiser: position i is predicted from the tokens before it, whatever follows."""

    time_independent = True
    self_conditioning = False

    def __init__(self, backbone: Transformer, process: AutoregressiveProcess, config: NgramDenoiserConfig) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, config, BEFORE)
        self.head = LinearHead(backbone.width, process.vocab_size)

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """p(x_i | x_{<i}) at every position; the mask id stands in for the token before the first."""
        positions = position_ids(batch)
        shifted = torch.where(positions == 0, self.process.mask, xt.roll(1, dims=1))
        features = self.add_label(self.embedding(shifted, self.process.mask, batch), batch)
        hidden = self.backbone(features, None, positions, attention_mask("causal", batch))
        return LazyPrediction(hidden, self.head)
