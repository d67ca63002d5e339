"""Structured Denoising Diffusion Models in Discrete State-Spaces (Austin et al. 2021)."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import Absorbing, CosineAlpha, Linear, Tokens, Uniform, UniformNoise
from ..networks import MaskDenoiserConfig, TokenDenoiserConfig
from ..objectives import DiscreteELBO, DiscreteLikelihood
from ..samplers import Ancestral, Unmasking
from . import Variants, recipe
from .common import AUTO_TEXT, GELU_BACKBONE, PUBLISHED_TRAINING, SMALL, SMALL_WITH_TIME

STEPS = 1000  # of the chain


@recipe
def d3pm() -> Variants:
    """Diffusion in a fixed number of steps: tokens turn into masks (or, in the variant `uniform`, into other tokens).

        textdiffusion train d3pm --data my.txt --out runs/mine

    Ten minutes on one CPU core give 2.62 bits per character on tinyshakespeare.

    `as_published` is the paper's absorbing model of text8: 12 layers, windows of 256 characters, the bound plus
    cross-entropy with lambda = 0.01. The released code weighs that against one of the 1000 steps; here the bound is
    their sum, so the weight is 10. There the cross-entropy counts all positions, here the masked ones alone: at the
    others the network reads the answer, and the loss is close to 0.
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Tokens(),
        process=Absorbing(schedule=Linear()),
        time_density=Uniform(),
        backbone=SMALL,
        denoiser=MaskDenoiserConfig(ngram_dim=32),
        objective=DiscreteELBO(steps=STEPS, cross_entropy=1.0),
        likelihood=DiscreteLikelihood(steps=STEPS),
        sampler=Unmasking(steps=64, order="entropy"),
        training=Training(optimizer="muon", lr=1e-2),
    )
    uniform = replace(
        default,
        process=UniformNoise(schedule=CosineAlpha()),
        backbone=SMALL_WITH_TIME,
        denoiser=TokenDenoiserConfig(ngram_dim=32),
        objective=DiscreteELBO(steps=STEPS),
        sampler=Ancestral(steps=128),
    )
    published = replace(
        default,
        text=TextConfig(length=256),
        backbone=replace(GELU_BACKBONE, width=768, depth=12, cond_dim=768, absolute_positions=True, norm_weight=True),
        denoiser=MaskDenoiserConfig(time=True),
        objective=DiscreteELBO(steps=STEPS, cross_entropy=0.01 * STEPS),
        sampler=Ancestral(steps=STEPS),
        training=replace(PUBLISHED_TRAINING, lr=5e-4, warmup=10_000, decay="inverse_sqrt", beta2=0.99),
    )
    return {"default": default, "uniform": uniform, "as_published": published}
