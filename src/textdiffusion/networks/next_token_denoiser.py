"""The denoiser of autoregression: each token from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch, position_ids
from ..core.registry import builds
from ..core.types import NoiseTimes, Tokens
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.process import TokenProcess
from .attention import causal_mask
from .denoiser import LabelConditioned, NgramDenoiserConfig
from .embedding import BEFORE, Blocks, NgramOffsets, TokenEmbedding
from .heads import LinearHead
from .kv_cache import KVCache
from .prefix_cache import PrefixCache
from .transformer import Transformer


@dataclass(frozen=True)
class NextTokenDenoiserConfig(NgramDenoiserConfig):
    """Every token from those before it; n-gram tables read tokens to the left alone."""

    processes: ClassVar = (AutoregressiveProcess,)
    backbones: ClassVar = (Transformer,)


class CausalNetwork(LabelConditioned):
    """A transformer that reads the token before each position; under the causal mask it predicts the next token.

    `offsets` are the groups of its n-gram tables, counted from the token before the position. Under the causal mask
    the tables see no later token, whatever the groups.
    """

    offsets: ClassVar[NgramOffsets]
    time_independent = True
    self_conditioning = False

    def __init__(
        self, backbone: Transformer, process: AutoregressiveProcess | TokenProcess, config: NgramDenoiserConfig
    ) -> None:
        super().__init__()
        self.backbone, self.mask = backbone, process.vocab_size
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, config, self.offsets)
        self.head = LinearHead(backbone.width, process.vocab_size)

    def predict_next(self, xt: Tokens, batch: Batch) -> Prediction:
        """p(x_i | x_{<i}) at every position; the mask id stands in for the token before the first."""
        return LazyPrediction(self.causal_features(self.previous_tokens(xt, batch), batch), self.head)

    def previous_tokens(self, xt: Tokens, batch: Batch) -> Tokens:
        """The token before each position, and the mask id at the first."""
        return torch.where(position_ids(batch) == 0, self.mask, xt.roll(1, dims=1))

    def causal_features(
        self, previous: Tokens, batch: Batch, start: int = 0, caches: Sequence[KVCache] | None = None
    ) -> Float[Tensor, "b n w"]:
        """Features of the positions from `start` on; `caches` have those before it."""
        assert isinstance(self.backbone, Transformer), "the settings allow no other"
        first, positions = max(0, start - self.embedding.left_context), position_ids(batch)
        tokens, context = previous[:, first:], batch.slice(first, previous.shape[1])
        looks_ahead = any(offset > 0 for group in self.embedding.offsets for offset in group)
        blocks = Blocks(positions[:, first:], tokens) if looks_ahead else None  # each position is a block of its own
        embedded = self.embedding(tokens, self.mask, context, blocks)
        features = self.add_label(embedded[:, start - first :], batch)
        return self.backbone(features, None, positions[:, start:], causal_mask(batch, start), caches)

    def cached(self) -> PrefixCache:
        """The prediction of the next token, which computes only what it has not read yet."""
        return PrefixCache(self)


@builds(NextTokenDenoiserConfig)
class NextTokenDenoiser(CausalNetwork):
    """Autoregression as a denoiser: position i is predicted from the tokens before it, whatever follows."""

    offsets = BEFORE

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """p(x_i | x_{<i}) at every position."""
        return self.predict_next(xt, batch)
