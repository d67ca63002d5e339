"""Block Diffusion: Interpolating Between Autoregressive and Diffusion Language Models (Arriola et al. 2025)."""

from dataclasses import replace

from ..config import Config, Training
from ..diffusion import BlockAbsorbing, Linear, LogLinear, Tokens, Uniform
from ..networks import BlockDenoiserConfig, TransformerConfig
from ..objectives import MaskedELBO, MaskedLikelihood
from ..samplers import BlockAncestral
from . import Variants, recipe
from .common import AUTO_TEXT, OPENWEBTEXT, PUBLISHED_BACKBONE, PUBLISHED_TRAINING


@recipe
def block_diffusion() -> Variants:
    """Blocks are written from left to right, the inside of a block by masked diffusion.

        textdiffusion train block_diffusion --data my.txt --out runs/mine --set process.block_size=16

    `process.block_size` ranges from 1, which is `autoregressive`, to the length of the text, which is `mdlm`: smaller
    blocks model text better; larger ones need fewer steps and see more of the text after a gap. Finished blocks are
    cached, and a text may be longer than the windows of training. A training step costs more than two of `mdlm`,
    because it also reads a clean copy of the text. Ten minutes on one CPU core give 2.75 bits per character on
    tinyshakespeare.

    `as_published` is the second phase of the paper's OpenWebText model with blocks of 4 (section 6 and appendix C): the
    network of `mdlm`, trained for 850,000 steps with one block of 1024, then for 150,000 with blocks of 4 and mask
    probabilities from 0.45 to 0.95. `--init` takes a run of the first phase
    (`--set process.block_size=1024 time_density.low=0 time_density.high=1 training.steps=850000`). The released code
    masks with probability 0.999 t; here it is t, which the range of t makes the same but for a thousandth.
    """
    default = Config(
        text=AUTO_TEXT,
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
        text=OPENWEBTEXT,
        process=BlockAbsorbing(schedule=LogLinear(), block_size=4),
        time_density=Uniform(low=0.45, high=0.95),
        backbone=PUBLISHED_BACKBONE,
        denoiser=BlockDenoiserConfig(),
        objective=MaskedELBO(max_weight=0.0),
        training=replace(PUBLISHED_TRAINING, steps=150_000),
    )
    return {"default": default, "as_published": published}
