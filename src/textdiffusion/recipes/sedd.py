"""Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al. 2023)."""

from dataclasses import replace

from ..config import Config, Training
from ..diffusion import Absorbing, LogLinear, Tokens, Uniform, UniformNoise
from ..networks import ScoreDenoiserConfig
from ..objectives import MaskedLikelihood, ScoreEntropy, ScoreEntropyLikelihood
from ..samplers import Euler, Tweedie, Unmasking
from . import Variants, recipe
from .common import AUTO_TEXT, OPENWEBTEXT, PUBLISHED_BACKBONE, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def sedd() -> Variants:
    """Score entropy: the network learns how much more likely a text becomes when one of its tokens is changed.

        textdiffusion train sedd --data my.txt --out runs/mine

    With masks the loss is that of `mdlm` plus the cost of an error in the total probability. The variant `uniform`
    replaces tokens by random ones instead of masks, so sampling may revise every position until the last step. Ten
    minutes on one CPU core give 2.62 bits per character on tinyshakespeare.

    `as_published` is the paper's small OpenWebText model (section 5): 12 layers of 768, GPT-2's tokens (vocab.json and
    merges.txt in a folder `gpt2`). The paper leaves out times below 0.001; here their weight is cut at 1000.
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Tokens(),
        process=Absorbing(schedule=LogLinear()),
        time_density=Uniform(),
        backbone=SMALL_WITH_TIME,
        denoiser=ScoreDenoiserConfig(ngram_dim=32),
        objective=ScoreEntropy(max_weight=3.0),
        likelihood=MaskedLikelihood(),
        sampler=Unmasking(steps=64, order="entropy"),
        training=Training(optimizer="muon", lr=1e-2),
    )
    uniform = replace(
        default,
        process=UniformNoise(schedule=LogLinear()),
        denoiser=ScoreDenoiserConfig(scale_by_sigma=False, ngram_dim=32),
        likelihood=ScoreEntropyLikelihood(),
        sampler=Tweedie(steps=128),
    )
    published = replace(
        default,
        text=OPENWEBTEXT,
        process=Absorbing(schedule=LogLinear(), time_input="sigma"),
        backbone=replace(PUBLISHED_BACKBONE, time_frequency=1.0),
        denoiser=ScoreDenoiserConfig(),
        objective=ScoreEntropy(max_weight=1000.0),
        likelihood=ScoreEntropyLikelihood(),
        sampler=Euler(steps=128),
        training=replace(PUBLISHED_TRAINING, steps=1_300_000),
    )
    return {"default": default, "uniform": uniform, "as_published": published}
