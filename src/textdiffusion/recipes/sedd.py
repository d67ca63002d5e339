"""Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al. 2023)."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    Absorbing,
    Euler,
    LogLinear,
    MaskedLikelihood,
    ScoreDenoiserConfig,
    ScoreEntropy,
    ScoreEntropyLikelihood,
    Tokens,
    TransformerConfig,
    Tweedie,
    Uniform,
    UniformNoise,
    Unmasking,
)
from . import PUBLISHED_BACKBONE, PUBLISHED_TRAINING, variant_of


def sedd(variant: str = "default") -> Config:
    """Score entropy: the network learns how much more likely a text becomes when one of its tokens is changed.

        textdiffusion train sedd --data my.txt --out runs/mine

    With masks the loss is that of `mdlm` but for what an error of the total mass costs; docs/experiments.md has the
    figures. `uniform` replaces tokens by random ones instead of masks, so that sampling may revise every position
    until the end.

    `as_published` is the paper's small OpenWebText model (section 5): 12 layers of 768, GPT-2's tokens (vocab.json and
    merges.txt in a folder `gpt2`). Its times below 0.001 are left out there; here their weight is cut at 1000.
    """
    default = Config(
        recipe="sedd",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=Absorbing(schedule=LogLinear()),
        time_density=Uniform(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32),
        denoiser=ScoreDenoiserConfig(ngram_dim=32),
        objective=ScoreEntropy(max_weight=3.0),
        likelihood=MaskedLikelihood(),
        sampler=Unmasking(steps=64, order="entropy"),
        training=Training(optimizer="muon", lr=1e-2),
    )
    uniform = replace(
        default,
        variant="uniform",
        process=UniformNoise(schedule=LogLinear()),
        denoiser=ScoreDenoiserConfig(scale_by_sigma=False, ngram_dim=32),
        likelihood=ScoreEntropyLikelihood(),
        sampler=Tweedie(steps=128),
    )
    published = replace(
        default,
        variant="as_published",
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="gpt2", length=1024),
        process=Absorbing(schedule=LogLinear(), time_input="sigma"),
        backbone=replace(PUBLISHED_BACKBONE, time_frequency=1.0),
        denoiser=ScoreDenoiserConfig(),
        objective=ScoreEntropy(max_weight=1000.0),
        likelihood=ScoreEntropyLikelihood(),
        sampler=Euler(steps=128),
        training=replace(PUBLISHED_TRAINING, steps=1_300_000),
    )
    return variant_of("sedd", variant, {"default": default, "uniform": uniform, "as_published": published})
