"""The same network made causal: the baseline of every table."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    Autoregressive,
    AutoregressiveOrder,
    NextToken,
    NextTokenDenoiserConfig,
    NextTokenLikelihood,
    Tokens,
    TransformerConfig,
    Uniform,
)
from . import PUBLISHED_BACKBONE, PUBLISHED_TRAINING, variant_of


def autoregressive(variant: str = "default") -> Config:
    """Left-to-right prediction with an exact likelihood: the same network made causal.

        textdiffusion train autoregressive --data my.txt --out runs/mine

    It reaches fewer bits per character than any diffusion model of its cost, and cannot see what comes after a gap.
    `as_published` is the baseline of MDLM's table on OpenWebText (Sahoo et al. 2024, section 5): its network, causal.
    """
    default = Config(
        recipe="autoregressive",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=AutoregressiveOrder(),
        time_density=Uniform(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4),
        denoiser=NextTokenDenoiserConfig(ngram_dim=32),
        objective=NextToken(),
        likelihood=NextTokenLikelihood(),
        sampler=Autoregressive(),
        training=Training(optimizer="muon", lr=1e-2),
    )
    published = replace(
        default,
        variant="as_published",
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="gpt2", length=1024),
        backbone=replace(PUBLISHED_BACKBONE, modulation="none"),
        denoiser=NextTokenDenoiserConfig(),
        training=PUBLISHED_TRAINING,
    )
    return variant_of("autoregressive", variant, {"default": default, "as_published": published})
