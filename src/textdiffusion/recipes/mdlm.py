"""Simple and Effective Masked Diffusion Language Models (Sahoo et al. 2024)."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    Absorbing,
    Ancestral,
    Linear,
    LogLinear,
    MaskDenoiserConfig,
    MaskedELBO,
    MaskedLikelihood,
    Tokens,
    TransformerConfig,
    Uniform,
    Unmasking,
)
from . import PUBLISHED_BACKBONE, PUBLISHED_TRAINING, variant_of


def mdlm(variant: str = "default") -> Config:
    """Masked diffusion: tokens turn into masks, the network fills them in, the loss is a weighted cross-entropy.

        textdiffusion train mdlm --data my.txt --out runs/mine

    Ten minutes of one core without bfloat16 bring tinyshakespeare to 2.63 bits per character, an hour to 2.45 (with
    `backbone.width=192 backbone.depth=3`); docs/experiments.md has the figures.

    `as_published` is the paper's OpenWebText model (section 5): 12 layers of 768, one million steps,
    GPT-2's tokens (vocab.json and merges.txt in a folder `gpt2`).
    """
    default = Config(
        recipe="mdlm",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=Absorbing(schedule=Linear()),
        time_density=Uniform(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4),
        denoiser=MaskDenoiserConfig(ngram_dim=32),
        objective=MaskedELBO(max_weight=3.0),
        likelihood=MaskedLikelihood(),
        sampler=Unmasking(steps=64, order="entropy"),
        training=Training(optimizer="muon", lr=1e-2),
    )
    published = replace(
        default,
        variant="as_published",
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="gpt2", length=1024),
        process=Absorbing(schedule=LogLinear()),
        # The paper's network keeps the adaptive layer norm of its ancestor and feeds it a constant.
        backbone=PUBLISHED_BACKBONE,
        denoiser=MaskDenoiserConfig(time=False),
        objective=MaskedELBO(max_weight=0.0),
        sampler=Ancestral(steps=1000),
        training=PUBLISHED_TRAINING,
    )
    return variant_of("mdlm", variant, {"default": default, "as_published": published})
