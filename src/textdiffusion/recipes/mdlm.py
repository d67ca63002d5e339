"""Simple and Effective Masked Diffusion Language Models (Sahoo et al. 2024)."""

from dataclasses import replace

from ..config import Config, Training
from ..diffusion import Absorbing, Linear, LogLinear, Tokens, Uniform, Wave
from ..networks import MaskDenoiserConfig
from ..objectives import MaskedELBO, MaskedLikelihood, WaveELBO, WaveLikelihood
from ..samplers import Ancestral, Unmasking
from . import Variants, recipe
from .common import AUTO_TEXT, OPENWEBTEXT, PUBLISHED_BACKBONE, PUBLISHED_TRAINING, SMALL


@recipe
def mdlm() -> Variants:
    """Masked diffusion: tokens turn into masks, the network fills them in, the loss is a weighted cross-entropy.

        textdiffusion train mdlm --data my.txt --out runs/mine

    Ten minutes on one CPU core give 2.62 bits per character on tinyshakespeare, an hour 2.45 (with
    `backbone.width=192 backbone.depth=3`).

    `as_published` is the paper's OpenWebText model (section 5): 12 layers of 768, one million steps, GPT-2's tokens
    (vocab.json and merges.txt in a folder `gpt2`), and t from 0.001 to 1 in training, as in the released code.

    `wave` masks from the right: about `process.width` positions are between clean and masked at any time, from 1,
    which is `autoregressive`, to the length of the text, which is the default (a hyperschedule: HDLM, 2025).
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Tokens(),
        process=Absorbing(schedule=Linear()),
        time_density=Uniform(),
        backbone=SMALL,
        denoiser=MaskDenoiserConfig(ngram_dim=32),
        objective=MaskedELBO(max_weight=3.0),
        likelihood=MaskedLikelihood(),
        sampler=Unmasking(steps=64, order="entropy"),
        training=Training(optimizer="muon", lr=1e-2),
    )
    published = replace(
        default,
        text=OPENWEBTEXT,
        process=Absorbing(schedule=LogLinear()),
        time_density=Uniform(low=1e-3),
        # The paper's network keeps the adaptive layer norm of its ancestor and feeds it a constant.
        backbone=PUBLISHED_BACKBONE,
        denoiser=MaskDenoiserConfig(time=False),
        objective=MaskedELBO(max_weight=0.0),
        sampler=Ancestral(steps=1000),
        training=PUBLISHED_TRAINING,
    )
    wave = replace(
        default,
        process=Wave(schedule=Linear(), width=16),
        objective=WaveELBO(max_weight=3.0),
        likelihood=WaveLikelihood(),
        sampler=Unmasking(order="left"),
    )
    return {"default": default, "as_published": published, "wave": wave}
