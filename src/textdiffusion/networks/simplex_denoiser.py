"""The denoiser of states that are one number per token: its network reads soft tokens."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..diffusion.codecs import SimplexCodec
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.prediction import Prediction
from .attention import attention_mask
from .backbone import Backbone
from .labels import LabelConditioned
from .output_heads import OutputHead

Reading = Literal["shrunken", "bayes"]


class SimplexDenoiser(LabelConditioned):
    """The network sees softmax(logits) @ embedding at every position (SSD-LM, section 3.2), or the given token itself.

    The logits are the noisy state, `shrunken` to the variance-preserving frame of the paper, or `bayes`: its evidence,
    with a learned prior, whose softmax is what the state says by itself. The two differ in temperature alone: at low
    noise Bayes' reading is sharper, at high noise it is flat where the paper's is a softmax of noise.
    Self-conditioning averages this law and that of the earlier estimate (TESS, section 3.2).
    """

    time_independent = False

    def __init__(
        self,
        backbone: Backbone,
        process: GaussianProcess,
        codec: SimplexCodec,
        *,
        readout: OutputHead,
        reading: Reading = "shrunken",
        self_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.process, self.codec, self.output_head = backbone, process, codec, readout
        self.reading, self.self_conditioning = reading, self_conditioning
        self.log_prior = nn.Parameter(torch.zeros(codec.vocab_size)) if reading == "bayes" else None
        self.tokens = nn.Parameter(0.5 * torch.randn(codec.vocab_size, backbone.width))
        self.given = nn.Parameter(torch.zeros(backbone.width))

    def forward(
        self,
        xt: Float[Tensor, "b l v"],
        t: Float[Tensor, "b *l"],
        *,
        batch: Batch,
        self_cond: Float[Tensor, "b l v"] | None = None,
    ) -> Prediction:
        """The law of the clean tokens given x_t; `self_cond` is an earlier posterior mean (None or 0: none yet)."""
        sigma = self.process.sigma_over(t, xt)
        seen = self.read(xt, sigma)
        if self_cond is not None:
            # A mean of corners is their probabilities; before the first estimate there are none.
            law = self_cond / self.codec.height
            seen = torch.where(law.sum(-1, keepdim=True) > 0.5, 0.5 * (seen + law), seen)
        features = seen @ self.tokens
        given = torch.zeros_like(batch.target_mask) if batch.condition_mask is None else batch.condition_mask
        clean = nn.functional.embedding(batch.tokens, self.tokens) + self.given
        features = self.add_label(torch.where(given[..., None], clean, features), batch)
        hidden = self.backbone(
            features, self.process.time_conditioning(t), position_ids(batch), attention_mask("full", batch)
        )
        return self.output_head(hidden, xt, sigma)

    def read(self, xt: Float[Tensor, "b l v"], sigma: Float[Tensor, "b #l 1"]) -> Float[Tensor, "b l v"]:
        """The soft tokens of a noisy state."""
        if self.log_prior is not None:
            return (self.codec.evidence(xt, sigma) + self.log_prior).softmax(-1)
        # Noise of the paper's state is K times that of a standard one, K half the height of a corner.
        return (xt / torch.sqrt(1.0 + (2.0 * sigma / self.codec.height) ** 2)).softmax(-1)
