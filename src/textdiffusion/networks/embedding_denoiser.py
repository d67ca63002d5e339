"""The denoiser of vectors under Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..core.batch import Batch
from ..core.registry import builds
from ..core.types import Hidden, Logits, NoiseTimes, Vectors
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.prediction import Prediction
from ..diffusion.table_codecs import TableCodec
from .backbone import Backbone
from .denoiser import DenoiserConfig, LabelConditioned
from .layers import Linear
from .output_heads import OutputHead, OutputHeadConfig, X0Logits


class DecodedEmbedding(nn.Module):
    """The posterior over tokens given one noisy vector, as features: Bayes' rule with a learned prior, then a table.

    The network then sees its neighbours as (soft) tokens and need not learn to decode them first (as SSD-LM reads its
    simplex, section 3.2).
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.log_prior = nn.Parameter(torch.zeros(vocab_size))
        self.tokens = nn.Parameter(0.5 * torch.randn(vocab_size, width))

    def forward(self, evidence: Logits) -> Hidden:
        """`evidence` is log q(x_t | token) up to a constant."""
        return (evidence + self.log_prior).softmax(-1) @ self.tokens


@dataclass(frozen=True)
class EmbeddingDenoiserConfig(DenoiserConfig):
    """Noisy vectors, clean conditioning tokens and self-conditioning in, a prediction of the clean vectors out."""

    processes: ClassVar = (GaussianProcess,)
    codecs: ClassVar = (TableCodec,)
    needs_noise_level: ClassVar = True

    output_head: OutputHeadConfig = X0Logits()  # noqa: RUF009 - it is frozen
    decode_input: bool = False
    """Also show the network the tokens that each noisy state suggests by itself."""
    self_conditioning: bool = True
    """Half of the training rows see the model's own first estimate, as every step of sampling and evaluation does."""


@builds(EmbeddingDenoiserConfig)
class EmbeddingDenoiser(LabelConditioned):
    """For processes whose state is vectors: a Prediction from the scaled state, conditioning and self-conditioning.

    The input at a position is [scaled x, or 0 at conditioning; clean state at conditioning, or 0; a flag that is 1 at
    conditioning; the earlier estimate] (CDCD, section 3.2), in units of the root mean square of clean states.
    """

    time_independent = False

    def __init__(
        self,
        backbone: Backbone,
        process: GaussianProcess,
        codec: TableCodec,
        *,
        output_head: OutputHead,
        decode_input: bool = False,
        self_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.self_conditioning = self_conditioning
        self.backbone, self.process, self.codec, self.output_head = backbone, process, codec, output_head
        self.input = Linear(3 * codec.dim + 1, backbone.width)
        self.decode_input = DecodedEmbedding(codec.vocab_size, backbone.width) if decode_input else None
        self.scale = codec.scale

    def forward(self, xt: Vectors, t: NoiseTimes, *, batch: Batch, self_cond: Vectors | None = None) -> Prediction:
        """p(x_0 | x_t). `self_cond` is an earlier posterior mean (None: there is none yet)."""
        sigma = self.process.sigma_over(t, xt)
        condition_mask = torch.zeros_like(batch.target_mask) if batch.condition_mask is None else batch.condition_mask
        bit = condition_mask[..., None].to(xt.dtype)
        scaled = xt / torch.sqrt(sigma**2 + self.scale**2) * (1.0 - bit)
        estimate = torch.zeros_like(xt) if self_cond is None else self_cond
        clean = self.codec.encode(batch.tokens) * bit / self.scale
        features = self.input(torch.cat((scaled, clean, bit, estimate * (1.0 - bit) / self.scale), dim=-1))
        if self.decode_input is not None:
            features = features + self.decode_input(self.codec.evidence(xt, sigma)) * (1.0 - bit)
        return self.output_head(self.run_backbone(features, self.process.time_conditioning(t), batch), xt, sigma)
