"""Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al. 2021)."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    Absorbing,
    Ancestral,
    CosineAlpha,
    DiscreteELBO,
    DiscreteLikelihood,
    Linear,
    MaskDenoiserConfig,
    TokenDenoiserConfig,
    Tokens,
    TransformerConfig,
    Uniform,
    UniformNoise,
    Unmasking,
)
from . import variant_of

STEPS = 1000  # of the chain


def d3pm(variant: str = "default") -> Config:
    """Diffusion in a fixed number of steps: tokens turn into masks (or, variant uniform, into other tokens).

        textdiffusion train d3pm --data my.txt --out runs/mine

    `as_published` is the paper's absorbing model of text8: 12 layers, windows of 256 characters, the bound with
    lambda = 0.01 of cross-entropy. The released code weighs that against one of the 1000 steps, so here, against their
    sum, it is 10.
    """
    default = Config(
        recipe="d3pm",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=Absorbing(schedule=Linear()),
        time_density=Uniform(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4),
        denoiser=MaskDenoiserConfig(ngram_dim=32),
        objective=DiscreteELBO(steps=STEPS, cross_entropy=1.0),
        likelihood=DiscreteLikelihood(steps=STEPS),
        sampler=Unmasking(steps=64, order="entropy"),
        training=Training(optimizer="muon", lr=1e-2),
    )
    uniform = replace(
        default,
        variant="uniform",
        process=UniformNoise(schedule=CosineAlpha()),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32),
        denoiser=TokenDenoiserConfig(ngram_dim=32),
        objective=DiscreteELBO(steps=STEPS),
        sampler=Ancestral(steps=128),
    )
    published = replace(
        default,
        variant="as_published",
        text=TextConfig(length=256),
        backbone=TransformerConfig(
            width=768,
            depth=12,
            modulation="film",
            cond_dim=768,
            activation="gelu",
            qk_norm=False,
            bias=True,
            norm_weight=True,
        ),
        denoiser=MaskDenoiserConfig(time=True),
        objective=DiscreteELBO(steps=STEPS, cross_entropy=0.01 * STEPS),
        sampler=Ancestral(steps=STEPS),
        training=Training(
            steps=1_000_000, batch_size=512, lr=5e-4, warmup=10_000, decay="inverse_sqrt", optimizer="adamw", ema=0.9999
        ),
    )
    return variant_of("d3pm", variant, {"default": default, "uniform": uniform, "as_published": published})
