"""Simple Guidance Mechanisms for Discrete Diffusion Models (Schiff et al. 2024): uniform diffusion language models."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import LogLinear, Tokens, Uniform, UniformNoise
from ..networks import TokenDenoiserConfig
from ..objectives import DiscreteELBO, DiscreteLikelihood, Duality
from ..samplers import Ancestral
from . import Variants, recipe
from .common import AUTO_TEXT, PUBLISHED_BACKBONE, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def udlm() -> Variants:
    """Uniform diffusion: tokens turn into other tokens, and the network may revise any token until the last step.

        textdiffusion train udlm --data my.txt --out runs/mine

    The variant `duo` begins with the curriculum of The Diffusion Duality (Sahoo et al. 2025): half of the default 5,000
    steps see soft tokens. Change objective.steps together with training.steps; the paper uses 500,000 of a million, at
    a temperature of 1e-3. Ten minutes on one CPU core give 2.89 bits per character on tinyshakespeare.

    `as_published` is the paper's model of LM1B: 12 layers of 768, a million steps, the tokens of BERT (tokenizer.json
    in a folder `bert`), and t from 0.001 to 1 in training, as in the released code.
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Tokens(),
        process=UniformNoise(schedule=LogLinear()),
        time_density=Uniform(),
        backbone=SMALL_WITH_TIME,
        denoiser=TokenDenoiserConfig(ngram_dim=32),
        objective=DiscreteELBO(),
        likelihood=DiscreteLikelihood(),
        sampler=Ancestral(steps=128),
        training=Training(optimizer="muon", lr=1e-2),
    )
    published = replace(
        default,
        text=TextConfig(data="hf:lm1b", field="text", tokenizer="file", tokenizer_path="bert", length=128),
        time_density=Uniform(low=1e-3),
        backbone=PUBLISHED_BACKBONE,
        denoiser=TokenDenoiserConfig(),
        sampler=Ancestral(steps=1000),
        training=PUBLISHED_TRAINING,
    )
    duo = replace(default, objective=Duality())
    return {"default": default, "duo": duo, "as_published": published}
