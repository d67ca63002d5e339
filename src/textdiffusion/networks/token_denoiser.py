"""Denoisers: a trunk with its input, its output head and its parameterisation. From a state they make a Prediction."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch, positions
from ..diffusion.autoregressive import LeftToRightProcess
from ..diffusion.prediction import HiddenPrediction, Prediction
from ..diffusion.process import TokenProcess
from .attention import attention_mask
from .backbone import Trunk
from .embedding import Tables, TokenEmbedding
from .labels import Labelled
from .output_heads import LinearHead, OwnHead
from .transformer import Transformer


class TokenDenoiser(Labelled):
    """For processes whose state is token ids: embedding in, logits over real tokens out (the mask has no logit: SUBS).

    Without a time input the masked share of x_t is all the network knows of t, which loses nothing (RADD, theorem 1).
    A trunk with adaptive layer norms is then fed a constant.
    """

    def __init__(
        self,
        trunk: Trunk,
        process: TokenProcess,
        *,
        time: bool = False,
        tables: Tables | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.process = trunk, process
        self.embedding = TokenEmbedding(process.vocab + 1, trunk.width, tables, states=process.states)
        self.head = LinearHead(trunk.width, process.vocab)
        self.time_free, self.self_conditioning = not time, False
        self.gives = True  # training gives tokens, at level 0

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the clean tokens given x_t; it is meant for positions that are noised and not clean again."""
        return self.read(self.hidden(xt, t, batch), xt, t)

    def softened(
        self, soft: Float[Tensor, "b l v"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch
    ) -> Prediction:
        """The same where the mixtures `soft` of states are embedded in the place of x_t."""
        return self.read(self.hidden(xt, t, batch, soft), xt, t)

    def read(self, hidden: Float[Tensor, "b l w"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Prediction:
        """The prediction that hidden states stand for."""
        own = self.process.evidence(xt, t)
        if own is None:
            return HiddenPrediction(hidden, self.head)
        with_own = torch.cat((hidden.float(), torch.stack((xt.float(), own), dim=-1)), dim=-1)
        return HiddenPrediction(with_own, OwnHead(self.head, hidden.dtype))

    def hidden(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], batch: Batch, soft: Float[Tensor, "b l v"] | None = None
    ) -> Float[Tensor, "b l w"]:
        """What the trunk makes of x_t."""
        level = torch.zeros_like(t) if self.time_free else self.process.level(t)
        # Beside masks a given token that training did not give is one that is shown; without masks its level tells.
        apart = self.gives or self.process.states == self.process.vocab
        if batch.given is not None and apart and not self.time_free:
            level = torch.where(batch.given, 0.0, level if level.ndim == 2 else level[:, None])
        features = self.embedding(xt, self.process.vocab, batch)
        if soft is not None:
            features = features + soft @ self.embedding.tokens.weight - self.embedding.tokens(xt)
        return self.trunk(self.labelled(features, batch), level, positions(batch), attention_mask("full", batch))


class NextTokenDenoiser(Labelled):
    """Autoregression as a denoiser: position i is predicted from the tokens before it, whatever stands from i on."""

    time_free = True
    self_conditioning = False

    def __init__(self, trunk: Transformer, process: LeftToRightProcess, *, tables: Tables | None = None) -> None:
        super().__init__()
        self.trunk, self.process = trunk, process
        self.embedding = TokenEmbedding(process.vocab + 1, trunk.width, tables)
        self.head = LinearHead(trunk.width, process.vocab)

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """p(x_i | x_{<i}) at every position; the mask id stands in for the token before the first."""
        at = positions(batch)
        shifted = torch.where(at == 0, self.process.mask, xt.roll(1, dims=1))
        features = self.labelled(self.embedding(shifted, self.process.mask, batch), batch)
        hidden = self.trunk(features, None, at, attention_mask("causal", batch))
        return HiddenPrediction(hidden, self.head)
