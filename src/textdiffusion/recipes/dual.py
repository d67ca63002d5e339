"""Masked diffusion and autoregression in one network (arXiv:2512.14549)."""

from ..config import Config, Training
from ..diffusion import DualAbsorbing, Linear, Tokens, Uniform
from ..networks import DualDenoiserConfig
from ..objectives import Dual, NextTokenLikelihood
from ..samplers import Autoregressive
from . import Variants, recipe
from .common import AUTO_TEXT, SMALL


@recipe
def dual() -> Variants:
    """One network, one set of weights, two attention masks: the next token under the causal one, masks under the full.

        textdiffusion train dual --data my.txt --out runs/mine

    It writes from left to right with an exact likelihood, and as a masked model in any order (`--sampler
    unmasking:order=entropy`), also into gaps.
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Tokens(),
        process=DualAbsorbing(schedule=Linear()),
        time_density=Uniform(),
        backbone=SMALL,
        denoiser=DualDenoiserConfig(ngram_dim=32),
        objective=Dual(),
        likelihood=NextTokenLikelihood(),
        sampler=Autoregressive(),
        training=Training(optimizer="muon", lr=1e-2),
    )
    return {"default": default}
