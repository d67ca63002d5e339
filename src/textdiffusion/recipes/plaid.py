"""Likelihood-Based Diffusion Language Models (Gulrajani and Hashimoto 2023)."""

from __future__ import annotations

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    DDIM,
    EmbeddingDenoiserConfig,
    Embeddings,
    Gaussian,
    GaussianELBO,
    GaussianLikelihood,
    LearnedLogSigma,
    MinVariance,
    TransformerConfig,
    X0Logits,
)
from . import variant_of


def plaid(variant: str = "default") -> Config:
    """Embedding diffusion trained on its likelihood bound: embeddings, noise range and noise density are all learned.

        textdiffusion train plaid --data my.txt --out runs/mine

    `cdcd` with the bound in place of the cross-entropy. What training shows as `bound` is what `evaluate`
    measures, but for vectors that can only be one token (`objectives.gaussian_bound.denoised`).

    `as_published` is the model of the paper's ablations (table 1): 16 blocks of 384, 16-dimensional embeddings, 92,000
    steps. For Plaid 1B set backbone.width=2048 backbone.depth=24. The schedule's inside is piecewise linear in 100 pieces
    (theirs: 1,024 tanh units); one row in 8 is decoded and half see their own estimate (theirs: a share that follows
    the spread of the terms, and a quarter); the output prior is there from the first step on (theirs: after 5,000).
    """
    readout = X0Logits(prior=True)
    default = Config(
        recipe="plaid",
        variant="default",
        text=TextConfig(mask="mixed"),
        codec=Embeddings(dim=16),
        process=Gaussian(schedule=LearnedLogSigma(sigma_min=0.1, sigma_max=20.0)),
        time_density=MinVariance(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32),
        denoiser=EmbeddingDenoiserConfig(output_head=readout, decode_input=True),
        objective=GaussianELBO(),
        likelihood=GaussianLikelihood(learned_decoder=True),
        sampler=DDIM(steps=64, eta=1.0),
        training=Training(optimizer="muon"),
    )
    published = Config(
        recipe="plaid",
        variant="as_published",
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="bpe", vocab_size=32_000, length=256),
        codec=Embeddings(dim=16),
        # gamma = 2 ln sigma from -3 to 6
        process=Gaussian(schedule=LearnedLogSigma(sigma_min=0.2231, sigma_max=20.09)),
        time_density=MinVariance(uniform_mix=0.0),
        backbone=TransformerConfig(
            width=384,
            depth=16,
            modulation="film",
            cond_dim=32,
            activation="gelu",
            qk_norm=False,
            absolute_positions=False,
            bias=True,
        ),
        denoiser=EmbeddingDenoiserConfig(output_head=readout),
        objective=GaussianELBO(),
        likelihood=GaussianLikelihood(learned_decoder=True),
        sampler=DDIM(steps=4096, eta=1.0),
        training=Training(
            steps=92_000,
            batch_size=256,
            lr=1.4e-3,
            codec_lr=1e-2,
            density_lr=1e-2,
            warmup=2500,
            decay="linear",
            optimizer="adamw",
            beta2=0.99,
            ema=0.9999,
        ),
    )
    return variant_of("plaid", variant, {"default": default, "as_published": published})
