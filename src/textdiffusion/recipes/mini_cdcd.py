"""mini CDCD (github.com/markov-bio/cdcd, 2024): continuous diffusion of categorical data, small and open."""

from __future__ import annotations

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    DDIM,
    Cauchy,
    EmbeddingDenoiserConfig,
    Embeddings,
    Gaussian,
    GaussianLikelihood,
    LinearSigma,
    LogSigma,
    ScoreInterpolation,
    TransformerConfig,
    X0Regression,
)
from . import variant_of


def mini_cdcd(variant: str = "default") -> Config:
    """Embedding diffusion whose network is preconditioned as in images, with an arctan curve as its learned warp.

        textdiffusion train mini_cdcd --data my.txt --out runs/mine

    A smaller relative of `cdcd`: the network regresses the clean vector, and tied logits read the tokens from it.

    `as_published` is the 140-million-parameter model of the notebook: TinyStories, one story cut to 64 of BERT's tokens
    (its vocab.txt in a folder `bert`), noise from 0.01 to 200. Our block differs: attention as wide as the features
    (theirs: 256 and 4096 wide) and a feed-forward with a non-linearity, so it is 576 wide to be as large. Padding is
    masked out, and the head is normalised as the input is. How long it was trained is not said: here 40,000 steps, of
    which 2,000 warm up.
    """
    readout = X0Regression(preconditioning="karras", mean_from_logits=True)
    default = Config(
        recipe="mini_cdcd",
        variant="default",
        text=TextConfig(mask="mixed"),
        codec=Embeddings(dim=16),
        process=Gaussian(schedule=LogSigma()),
        time_density=Cauchy(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32),
        denoiser=EmbeddingDenoiserConfig(output_head=readout, decode_input=True),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64),
        training=Training(optimizer="muon"),
    )
    published = Config(
        recipe="mini_cdcd",
        variant="as_published",
        text=TextConfig(
            data="hf:roneneldan/TinyStories",
            field="text",
            tokenizer="file",
            tokenizer_path="bert/vocab.txt",
            layout="documents",
            length=64,
        ),
        codec=Embeddings(dim=256),
        process=Gaussian(schedule=LinearSigma(sigma_min=0.01 / 16, sigma_max=200 / 16)),
        time_density=Cauchy(midpoint=3.0171 / 16, scale=1.7785 / 16, uniform_mix=0.0),
        backbone=TransformerConfig(
            width=576, depth=32, modulation="adaln", cond_dim=64, activation="gelu", absolute_positions=False
        ),
        denoiser=EmbeddingDenoiserConfig(output_head=readout, self_conditioning=False),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=1000, eta=0.0),
        training=Training(
            steps=40_000,
            batch_size=64,
            lr=5e-3,
            warmup=2000,
            decay="exponential",
            min_lr_ratio=0.97**380,  # by 3 % every 100 steps
            optimizer="adamw",
            beta2=0.999,
            ema=0.0,
        ),
    )
    return variant_of("mini_cdcd", variant, {"default": default, "as_published": published})
