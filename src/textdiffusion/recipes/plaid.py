"""Likelihood-Based Diffusion Language Models (Gulrajani and Hashimoto 2023)."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import Embeddings, Gaussian, LearnedLogSigma, MinVariance
from ..networks import EmbeddingDenoiserConfig, X0Logits
from ..objectives import GaussianELBO, GaussianLikelihood
from ..samplers import DDIM
from . import Variants, recipe
from .common import AUTO_TEXT, GELU_BACKBONE, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def plaid() -> Variants:
    """Embedding diffusion trained on its likelihood bound: embeddings, noise range and noise density are all learned.

        textdiffusion train plaid --data my.txt --out runs/mine

    `cdcd` with the bound in place of the cross-entropy. Training shows as `bound` the value that `evaluate` measures,
    except for vectors that can only be one token (`objectives.gaussian_elbo.denoise`). Ten minutes on one CPU core
    give 3.07 bits per character on tinyshakespeare.

    `as_published` is the model of the paper's ablations (table 1): 16 blocks of 384, 16-dimensional embeddings, 92,000
    steps. For Plaid 1B set backbone.width=2048 backbone.depth=24. It differs in three points: the schedule is piecewise
    linear in 100 pieces (theirs: 1,024 tanh units); one row in 8 is decoded and half see their own estimate (theirs: a
    fraction that follows the spread of the terms, and a quarter); the output prior acts from the first step on (theirs:
    after 5,000).
    """
    head = X0Logits(prior=True)
    default = Config(
        text=replace(AUTO_TEXT, mask="mixed"),
        codec=Embeddings(dim=16),
        process=Gaussian(schedule=LearnedLogSigma(sigma_min=0.1, sigma_max=20.0)),
        time_density=MinVariance(),
        backbone=SMALL_WITH_TIME,
        denoiser=EmbeddingDenoiserConfig(output_head=head, decode_input=True),
        objective=GaussianELBO(),
        likelihood=GaussianLikelihood(learned_decoder=True),
        sampler=DDIM(steps=64, eta=1.0),
        training=Training(optimizer="muon"),
    )
    published = replace(
        default,
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="bpe", vocab_size=32_000, length=256),
        # gamma = 2 ln sigma from -3 to 6
        process=Gaussian(schedule=LearnedLogSigma(sigma_min=0.2231, sigma_max=20.09)),
        time_density=MinVariance(uniform_mix=0.0),
        backbone=replace(GELU_BACKBONE, width=384, depth=16, cond_dim=32),
        denoiser=EmbeddingDenoiserConfig(output_head=head),
        sampler=DDIM(steps=4096, eta=1.0),
        training=replace(
            PUBLISHED_TRAINING,
            steps=92_000,
            batch_size=256,
            lr=1.4e-3,
            codec_lr=1e-2,
            density_lr=1e-2,
            decay="linear",
            beta2=0.99,
        ),
    )
    return {"default": default, "as_published": published}
