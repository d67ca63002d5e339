"""The denoiser of states with one number per token: its network reads soft tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from ..core.batch import Batch
from ..core.registry import builds
from ..core.types import Logits, NoiseTimes, Probs, Sigma
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.prediction import Prediction
from ..diffusion.table_codecs import SimplexCodec
from .backbone import Backbone
from .denoiser import DenoiserConfig, LabelConditioned
from .output_heads import OutputHead, OutputHeadConfig, X0Logits

Reading = Literal["shrunken", "bayes"]


@dataclass(frozen=True)
class SimplexDenoiserConfig(DenoiserConfig):
    """Noisy simplices in as soft tokens, a prediction of the clean ones out.

    `reading`: soft tokens are the softmax of the state at the paper's scale (`shrunken`), or follow by Bayes' rule.
    """

    processes: ClassVar = (GaussianProcess,)
    codecs: ClassVar = (SimplexCodec,)
    needs_noise_level: ClassVar = True

    output_head: OutputHeadConfig = X0Logits()  # noqa: RUF009 - it is frozen
    reading: Reading = "shrunken"
    self_conditioning: bool = True


@builds(SimplexDenoiserConfig)
class SimplexDenoiser(LabelConditioned):
    """The network sees softmax(logits) @ embedding at every position (SSD-LM, section 3.2), or the conditioning token.

    The logits are the noisy state, shrunk to the variance-preserving frame of the paper (`shrunken`), or its evidence
    with a learned prior (`bayes`), whose softmax is the posterior given the state alone. The two differ in temperature:
    at low noise Bayes' rule is sharper; at high noise it is flat, while the paper's is a softmax of noise.
    Self-conditioning averages these probabilities and those of the earlier estimate (TESS, section 3.2).
    """

    time_independent = False

    def __init__(
        self,
        backbone: Backbone,
        process: GaussianProcess,
        codec: SimplexCodec,
        *,
        output_head: OutputHead,
        reading: Reading = "shrunken",
        self_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.process, self.codec, self.output_head = backbone, process, codec, output_head
        self.self_conditioning = self_conditioning
        self.log_prior = nn.Parameter(torch.zeros(codec.vocab_size)) if reading == "bayes" else None
        self.tokens = nn.Parameter(0.5 * torch.randn(codec.vocab_size, backbone.width))
        self.condition_embedding = nn.Parameter(torch.zeros(backbone.width))

    def forward(self, xt: Logits, t: NoiseTimes, *, batch: Batch, self_cond: Logits | None = None) -> Prediction:
        """p(x_0 | x_t). `self_cond` is an earlier posterior mean (None, or 0 in a row: there is none yet)."""
        sigma = self.process.sigma_over(t, xt)
        probs = self.soft_tokens(xt, sigma)
        if self_cond is not None:
            # A mean of corners is their probabilities; before the first estimate it is zero.
            estimate = self_cond / self.codec.height
            probs = torch.where(estimate.sum(-1, keepdim=True) > 0.5, 0.5 * (probs + estimate), probs)
        features = probs @ self.tokens
        condition_mask = torch.zeros_like(batch.target_mask) if batch.condition_mask is None else batch.condition_mask
        clean = nn.functional.embedding(batch.tokens, self.tokens) + self.condition_embedding
        features = torch.where(condition_mask[..., None], clean, features)
        return self.output_head(self.run_backbone(features, self.process.time_conditioning(t), batch), xt, sigma)

    def soft_tokens(self, xt: Logits, sigma: Sigma) -> Probs:
        """Probabilities of the tokens, read from the noisy state alone."""
        if self.log_prior is not None:
            return (self.codec.evidence(xt, sigma) + self.log_prior).softmax(-1)
        # Noise of the paper's state is K times that of a standard one, K half the height of a corner.
        return (xt / torch.sqrt(1.0 + (2.0 * sigma / self.codec.height) ** 2)).softmax(-1)
