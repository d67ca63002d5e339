"""Block Diffusion: Interpolating Between Autoregressive and Diffusion Language Models (Arriola et al. 2025)."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    BlockAbsorbing,
    BlockAncestral,
    BlockDenoiserConfig,
    Linear,
    LogLinear,
    MaskedELBO,
    MaskedLikelihood,
    Tokens,
    TransformerConfig,
    Uniform,
)
from . import PUBLISHED_BACKBONE, PUBLISHED_TRAINING, variant_of


def block_diffusion(variant: str = "default") -> Config:
    """Blocks are written from left to right, the inside of a block by masked diffusion.

        textdiffusion train block_diffusion --data my.txt --out runs/mine --set process.block_size=16

    `process.block_size` goes from 1, which is `autoregressive`, to the length of the text, which is `mdlm`: smaller blocks
    model text better, larger ones are written in fewer steps and see more of what follows. Finished blocks are cached,
    and a text may be longer than the windows of training. A step of training costs more than two of `mdlm`: it has a
    clean copy of the text too.

    `as_published` is the paper's OpenWebText model with blocks of 4 (section 6 and appendix C): the network of
    `mdlm`, 850,000 of its steps with one block of 1024, then 150,000 with blocks of 4 and masked shares from 0.45 to
    0.95. This variant is the second phase; `--init` takes a run of the first
    (`--set process.block_size=1024 time_density.low=0 time_density.high=1 training.steps=850000`).
    """
    default = Config(
        recipe="block_diffusion",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=BlockAbsorbing(schedule=Linear(), block_size=16),
        time_density=Uniform(),
        backbone=TransformerConfig(width=128, depth=4),
        denoiser=BlockDenoiserConfig(ngram_dim=32),
        objective=MaskedELBO(max_weight=3.0),
        likelihood=MaskedLikelihood(),
        sampler=BlockAncestral(),
        training=Training(optimizer="muon", lr=1e-2),
    )
    published = replace(
        default,
        variant="as_published",
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="gpt2", length=1024),
        process=BlockAbsorbing(schedule=LogLinear(), block_size=4),
        time_density=Uniform(low=0.45, high=0.95),
        backbone=PUBLISHED_BACKBONE,
        denoiser=BlockDenoiserConfig(),
        objective=MaskedELBO(max_weight=0.0),
        training=replace(PUBLISHED_TRAINING, steps=150_000),
    )
    return variant_of("block_diffusion", variant, {"default": default, "as_published": published})
