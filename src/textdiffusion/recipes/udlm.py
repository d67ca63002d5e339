"""Simple Guidance Mechanisms for Discrete Diffusion Models (Schiff et al. 2024): uniform diffusion language models."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    Ancestral,
    DiscreteELBO,
    DiscreteLikelihood,
    Duality,
    LogLinear,
    TokenDenoiserConfig,
    Tokens,
    TransformerConfig,
    Uniform,
    UniformNoise,
)
from . import PUBLISHED_BACKBONE, PUBLISHED_TRAINING, variant_of


def udlm(variant: str = "default") -> Config:
    """Uniform diffusion: tokens turn into other tokens, the network doubts them all and may revise each until the end.

        textdiffusion train udlm --data my.txt --out runs/mine

    `duo` begins with the curriculum of The Diffusion Duality (Sahoo et al. 2025): half of the default 5,000 steps see
    soft tokens. Change objective.steps with training.steps; theirs are 500,000 of a million, at a temperature of 1e-3.

    `as_published` is the paper's model of LM1B: 12 layers of 768, a million steps, the tokens of BERT (a file
    tokenizer.json in a folder `bert`).
    """
    default = Config(
        recipe="udlm",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=UniformNoise(schedule=LogLinear()),
        time_density=Uniform(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32),
        denoiser=TokenDenoiserConfig(ngram_dim=32),
        objective=DiscreteELBO(),
        likelihood=DiscreteLikelihood(),
        sampler=Ancestral(steps=128),
        training=Training(optimizer="muon", lr=1e-2),
    )
    published = replace(
        default,
        variant="as_published",
        text=TextConfig(data="hf:lm1b", field="text", tokenizer="file", tokenizer_path="bert", length=128),
        backbone=PUBLISHED_BACKBONE,
        denoiser=TokenDenoiserConfig(),
        sampler=Ancestral(steps=1000),
        training=PUBLISHED_TRAINING,
    )
    duo = replace(default, variant="duo", objective=Duality())
    return variant_of("udlm", variant, {"default": default, "duo": duo, "as_published": published})
