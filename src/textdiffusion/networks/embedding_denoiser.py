"""The denoiser of Gaussian processes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..diffusion.codecs import TableCodec
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.prediction import Prediction
from .attention import attention_mask
from .backbone import Backbone
from .labels import LabelConditioned
from .output_heads import OutputHead
from .transformer import Linear


class Decoded(nn.Module):
    """The tokens that a noisy state suggests by itself, as features: Bayes' rule with a learned prior, then a table.

    The network then sees its neighbours as (soft) tokens and need not learn to decode them first (SSD-LM, section 3.2,
    reads its simplex in this way).
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.log_prior = nn.Parameter(torch.zeros(vocab_size))
        self.tokens = nn.Parameter(0.5 * torch.randn(vocab_size, width))

    def forward(self, evidence: Float[Tensor, "b l v"]) -> Float[Tensor, "b l w"]:
        """`evidence` is log q(x_t | token) up to a constant."""
        return (evidence + self.log_prior).softmax(-1) @ self.tokens


class EmbeddingDenoiser(LabelConditioned):
    """For processes whose state is vectors: a Prediction from the scaled state, given tokens and self-conditioning.

    The input at a position is [scaled x or 0 if given, clean state or 0 if not, given bit, self-conditioning] (CDCD,
    section 3.2), where s is the root mean square of clean states. What comes out is the readout's Prediction.
    """

    time_independent = False

    def __init__(
        self,
        backbone: Backbone,
        process: GaussianProcess,
        codec: TableCodec,
        *,
        readout: OutputHead,
        decoded: bool = False,
        self_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.self_conditioning = self_conditioning
        self.backbone, self.process, self.codec, self.output_head = backbone, process, codec, readout
        self.input = Linear(3 * codec.dim + 1, backbone.width)
        self.decode_input = Decoded(codec.vocab_size, backbone.width) if decoded else None
        self.scale = codec.scale

    def forward(
        self,
        xt: Float[Tensor, "b l d"],
        t: Float[Tensor, "b *l"],
        *,
        batch: Batch,
        self_cond: Float[Tensor, "b l d"] | None = None,
    ) -> Prediction:
        """The law of the clean tokens given x_t; `self_cond` is an earlier posterior mean (None: none yet)."""
        sigma = self.process.sigma_over(t, xt)
        given = torch.zeros_like(batch.target_mask) if batch.condition_mask is None else batch.condition_mask
        bit = given[..., None].to(xt.dtype)
        scaled = xt / torch.sqrt(sigma**2 + self.scale**2) * (1.0 - bit)
        estimate = torch.zeros_like(xt) if self_cond is None else self_cond
        clean = self.codec.encode(batch.tokens) * bit / self.scale
        features = self.input(torch.cat((scaled, clean, bit, estimate * (1.0 - bit) / self.scale), dim=-1))
        if self.decode_input is not None:
            features = features + self.decode_input(self.codec.evidence(xt, sigma)) * (1.0 - bit)
        features = self.add_label(features, batch)
        hidden = self.backbone(
            features, self.process.time_conditioning(t), position_ids(batch), attention_mask("full", batch)
        )
        return self.output_head(hidden, xt, sigma)
