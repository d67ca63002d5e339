"""From a causal language model to a diffusion model (Fast-dLLM v2: Wu et al. 2025; SDAR: Cheng et al. 2025)."""

from dataclasses import replace

from ..config import Config, Training
from ..diffusion import Absorbing, BlockAbsorbing, Linear, Tokens, Uniform
from ..networks import LanguageModelConfig, LMBlockDenoiserConfig, LMDenoiserConfig
from ..objectives import MaskedELBO, MaskedLikelihood
from ..samplers import BlockUnmasking, Unmasking
from . import Variants, recipe
from .common import AUTO_TEXT


@recipe
def adapted() -> Variants:
    """A causal language model learns to denoise: blocks from left to right, each token predicted from the one before.

        textdiffusion convert MODEL --out runs/base
        textdiffusion train adapted --init runs/base --data my.txt --out runs/mine

    `MODEL` is a folder or hub id of a Llama, Qwen2, Qwen3 or GPT-2, or of any model in docs/large-models.md, which then
    learns more. The network is that of the run; without one, a small Qwen3 begins from random weights. Every batch has
    masks and their complement, so each token is predicted once (`objective.complementary`), and logits stay those of
    the next token (`denoiser.shift`).

    `as_published` has the settings of Fast-dLLM v2: blocks of 32 in parts of 8, plain cross-entropy and a learning rate
    of 2e-5 for 7 billion parameters. `sdar` has blocks of 4, weights 1 / t and no shift. `full` attends to everything,
    as Dream does, and `a2d` without a shift, as the networks of Tiny-A2D do.
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Tokens(),
        process=BlockAbsorbing(schedule=Linear(), block_size=16),
        time_density=Uniform(),
        backbone=LanguageModelConfig(),
        denoiser=LMBlockDenoiserConfig(shift=True),
        objective=MaskedELBO(max_weight=1.0, complementary=True),
        likelihood=MaskedLikelihood(),
        sampler=BlockUnmasking(order="confidence"),
        training=Training(lr=1e-4, beta2=0.999),
    )
    published = replace(
        default,
        process=BlockAbsorbing(schedule=Linear(), block_size=32),
        sampler=BlockUnmasking(order="confidence", threshold=0.9, block_size=8, spaced=False),
        training=Training(steps=6000, batch_size=256, lr=2e-5, warmup=500, beta2=0.999, ema=0.0),
    )
    sdar = replace(
        default,
        process=BlockAbsorbing(schedule=Linear(), block_size=4),
        denoiser=LMBlockDenoiserConfig(),
        objective=MaskedELBO(max_weight=0.0),
        sampler=BlockUnmasking(order="confidence", threshold=0.9, spaced=False),
    )
    full = replace(
        default,
        process=Absorbing(schedule=Linear()),
        denoiser=LMDenoiserConfig(shift=True),
        sampler=Unmasking(order="entropy"),
    )
    a2d = replace(full, denoiser=LMDenoiserConfig(), objective=MaskedELBO(max_weight=0.0))
    return {"default": default, "as_published": published, "sdar": sdar, "full": full, "a2d": a2d}
