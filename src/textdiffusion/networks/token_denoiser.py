"""Denoisers: a trunk with its input, its output head and its parameterisation. From a state they make a Prediction."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch, position_ids
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.process import TokenProcess
from .attention import attention_mask
from .backbone import Backbone
from .embedding import NgramTables, TokenEmbedding
from .labels import LabelConditioned
from .output_heads import LinearHead, OwnHead
from .transformer import Transformer


class TokenDenoiser(LabelConditioned):
    """For processes whose state is token ids: embedding in, logits over real tokens out (the mask has no logit: SUBS).

    Without a time input the masked share of x_t is all the network knows of t, which loses nothing (RADD, theorem 1).
    A trunk with adaptive layer norms is then fed a constant.
    """

    def __init__(
        self,
        backbone: Backbone,
        process: TokenProcess,
        *,
        time: bool = False,
        tables: NgramTables | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, tables, states=process.num_states)
        self.head = LinearHead(backbone.width, process.vocab_size)
        self.time_independent, self.self_conditioning = not time, False
        self.trained_with_conditioning = True  # training gives tokens, at level 0

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the clean tokens given x_t; it is meant for positions that are noised and not clean again."""
        return self.output(self.features(xt, t, batch), xt, t)

    def forward_soft(
        self, soft: Float[Tensor, "b l v"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch
    ) -> Prediction:
        """The same where the mixtures `soft` of states are embedded in the place of x_t."""
        return self.output(self.features(xt, t, batch, soft), xt, t)

    def output(self, hidden: Float[Tensor, "b l w"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Prediction:
        """The prediction that hidden states stand for."""
        own = self.process.self_log_odds(xt, t)
        if own is None:
            return LazyPrediction(hidden, self.head)
        with_own = torch.cat((hidden.float(), torch.stack((xt.float(), own), dim=-1)), dim=-1)
        return LazyPrediction(with_own, OwnHead(self.head, hidden.dtype))

    def features(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], batch: Batch, soft: Float[Tensor, "b l v"] | None = None
    ) -> Float[Tensor, "b l w"]:
        """What the trunk makes of x_t."""
        level = torch.zeros_like(t) if self.time_independent else self.process.time_conditioning(t)
        # Beside masks a given token that training did not give is one that is shown; without masks its level tells.
        apart = self.trained_with_conditioning or self.process.num_states == self.process.vocab_size
        if batch.condition_mask is not None and apart and not self.time_independent:
            level = torch.where(batch.condition_mask, 0.0, level if level.ndim == 2 else level[:, None])
        features = self.embedding(xt, self.process.vocab_size, batch)
        if soft is not None:
            features = features + soft @ self.embedding.tokens.weight - self.embedding.tokens(xt)
        return self.backbone(self.add_label(features, batch), level, position_ids(batch), attention_mask("full", batch))


class NextTokenDenoiser(LabelConditioned):
    """Autoregression as a denoiser: position i is predicted from the tokens before it, whatever stands from i on."""

    time_independent = True
    self_conditioning = False

    def __init__(
        self, backbone: Transformer, process: AutoregressiveProcess, *, tables: NgramTables | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, tables)
        self.head = LinearHead(backbone.width, process.vocab_size)

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """p(x_i | x_{<i}) at every position; the mask id stands in for the token before the first."""
        at = position_ids(batch)
        shifted = torch.where(at == 0, self.process.mask, xt.roll(1, dims=1))
        features = self.add_label(self.embedding(shifted, self.process.mask, batch), batch)
        hidden = self.backbone(features, None, at, attention_mask("causal", batch))
        return LazyPrediction(hidden, self.head)
