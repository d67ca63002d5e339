"""Minimal text diffusion (A. Madaan's teaching version of Diffusion-LM, 2022)."""

from dataclasses import replace

from ..config import TextConfig
from ..diffusion import Embeddings
from ..samplers import DDIM
from . import Variants, recipe
from .diffusion_lm import diffusion_lm


@recipe
def minimal_text_diffusion() -> Variants:
    """Diffusion-LM over whole words, one line at a time, for corpora of a few thousand sentences.

        textdiffusion train minimal_text_diffusion --data sentences.txt --out runs/mine

    It learns words in two or three minutes. Ten minutes on one CPU core give 3.25 bits per character on tinyshakespeare
    (lines of characters).

    `as_published` is the repository's model of its 165-word corpus: BERT-base's size, 128-dimensional embeddings,
    sampling noise truncated at 0.9 standard deviations. Unlike the original, it models padding, samples to the last
    step, reads the text from the prediction, and noises embeddings once (see `diffusion_lm`).
    """
    small, large = diffusion_lm(), diffusion_lm("as_published")
    default = replace(
        small,
        text=TextConfig(tokenizer="words", layout="lines", length=32, model_padding=True),
        sampler=DDIM(steps=64, eta=1.0, clamp=1.0, max_noise_std=2.0),
    )
    published = replace(
        large,
        text=TextConfig(normaliser="lower", tokenizer="words", layout="lines", length=50, model_padding=True),
        codec=Embeddings(dim=128, init_std=1.0, norm="none"),
        sampler=DDIM(steps=20, eta=1.0, max_noise_std=0.9),
        training=replace(large.training, steps=25_001),
    )
    return {"default": default, "as_published": published}
