"""Diffusion-LM (Li et al. 2022)."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import DiscreteBetas, Embeddings, Gaussian, Uniform
from ..networks import EmbeddingDenoiserConfig, X0Regression
from ..objectives import DiffusionLM, GaussianLikelihood
from ..samplers import DDIM
from . import Variants, recipe
from .common import AUTO_TEXT, PUBLISHED_BACKBONE, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def diffusion_lm() -> Variants:
    """Embedding diffusion trained by squared error on 2,000 noise levels; text is read by rounding to the nearest one.

        textdiffusion train diffusion_lm --data my.txt --out runs/mine

    Ten minutes on one CPU core give 3.24 bits per character on tinyshakespeare.

    `as_published` is the paper's E2E model (section 5): BERT-base's size, 16-dimensional embeddings, 821 words, lines
    padded to 64 tokens, every step clamped. For ROCStories set codec.dim=128, text.vocab_size=11043 and
    training.steps=800000. Our blocks differ: pre-normalised, with the time in adaptive layer norms. The released code
    noises embeddings that already have the noise of the first level, so its low levels have more of it (a standard
    deviation of 0.172 where the schedule says 0.122); here x_t is noised once, as in the paper's equations.
    """
    default = Config(
        text=AUTO_TEXT,
        codec=Embeddings(dim=16, init_std=1.0, norm="none"),
        process=Gaussian(schedule=DiscreteBetas(betas="sqrt", steps=2000)),
        time_density=Uniform(),
        backbone=SMALL_WITH_TIME,
        denoiser=EmbeddingDenoiserConfig(
            output_head=X0Regression(preconditioning="evidence"), decode_input=True, self_conditioning=False
        ),
        objective=DiffusionLM(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64, eta=1.0),
        training=Training(optimizer="muon"),
    )
    published = replace(
        default,
        text=TextConfig(
            data="hf:tuetschek/e2e_nlg",
            field="human_reference",
            tokenizer="words",
            vocab_size=821,
            layout="documents",
            length=64,
            model_padding=True,
        ),
        backbone=replace(PUBLISHED_BACKBONE, cond_dim=16, absolute_positions=True, norm_bias=True),
        denoiser=EmbeddingDenoiserConfig(output_head=X0Regression(), self_conditioning=False),
        sampler=DDIM(steps=2000, eta=1.0, clamp=1.0),
        training=replace(
            PUBLISHED_TRAINING, steps=200_000, batch_size=64, lr=1e-4, warmup=0, decay="linear", grad_clip=0.0
        ),
    )
    return {"default": default, "as_published": published}
