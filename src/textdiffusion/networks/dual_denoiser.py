"""The denoiser of dual training: one network, under the causal mask or under the full one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from ..core.batch import Batch, position_ids
from ..core.registry import builds
from ..core.types import NoiseTimes, Tokens
from ..diffusion.dual import DualProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from .attention import attention_mask
from .denoiser import NgramDenoiserConfig
from .embedding import AROUND, BEFORE
from .next_token_denoiser import CausalNetwork
from .transformer import Transformer

# Those on both sides of the next token, and those before it, counted from the token before the next.
EITHER = tuple(dict.fromkeys([*BEFORE, *(tuple(offset + 1 for offset in group) for group in AROUND)]))


@dataclass(frozen=True)
class DualDenoiserConfig(NgramDenoiserConfig):
    """Masked tokens from all others, or every token from those before it, by the same weights."""

    processes: ClassVar = (DualProcess,)
    backbones: ClassVar = (Transformer,)


@builds(DualDenoiserConfig)
class DualDenoiser(CausalNetwork):
    """One network for masks and for left to right (arXiv:2512.14549): a position always predicts the next token.

    The rows have one position more than tokens: the first stands before the text, and the last one predicts nothing.
    """

    offsets = EITHER

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """p(x_0 | x_t), meant for masks; `predict_next` is the prediction from left to right."""
        valid = batch.valid_mask
        valid = None if valid is None else F.pad(valid, (1, 0), value=True)
        rows = Batch(F.pad(xt, (1, 0), value=self.mask), valid_mask=valid)
        features = self.add_label(self.embedding(rows.tokens, self.mask, rows), batch)
        hidden = self.backbone(features, None, position_ids(rows), attention_mask("full", rows))
        return LazyPrediction(hidden[:, :-1], self.head)
