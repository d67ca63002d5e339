"""Continuous diffusion for categorical data (Dieleman et al. 2022)."""

from __future__ import annotations

from ..config.config import Config
from ..config.training import Training
from ..data.config import TextConfig
from ..diffusion.binned_densities import TimeWarp
from ..diffusion.curve_densities import Gumbel
from ..diffusion.gaussian import Gaussian
from ..diffusion.sigma_schedules import LinearSigma, LogSigma
from ..diffusion.table_codecs import Embeddings
from ..networks.embedding_denoiser import EmbeddingDenoiserConfig
from ..networks.output_heads import X0Logits
from ..networks.transformer import TransformerConfig
from ..objectives.embedding_losses import ScoreInterpolation
from ..objectives.gaussian_elbo import GaussianLikelihood
from ..samplers.ddim import DDIM
from ..samplers.dpm_solver import DPMSolver
from . import Variants, recipe
from .common import SMALL_WITH_TIME


@recipe
def cdcd() -> Variants:
    """Embedding diffusion trained by cross-entropy alone: normalised embeddings, score interpolation, a learned warp.

        textdiffusion train cdcd --data my.txt --out runs/mine

    At equal cost it stays well behind `mdlm` in bits per character, but its state moves smoothly, which allows guidance
    by gradients. Ten minutes on one CPU core give 2.93 bits per character on tinyshakespeare.

    `as_published` is the paper's base model (section 5): 8 blocks of 1024, 256-dimensional embeddings, noise from 1 to
    300 (0.0625 to 18.75 norms), 32,000 SentencePiece tokens, a piecewise-linear warp.
    """
    default = Config(
        text=TextConfig(mask="mixed"),
        codec=Embeddings(dim=16),
        process=Gaussian(schedule=LogSigma()),
        time_density=Gumbel(),
        backbone=SMALL_WITH_TIME,
        denoiser=EmbeddingDenoiserConfig(decode_input=True),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DPMSolver(steps=64),
        training=Training(optimizer="muon"),
    )
    published = Config(
        text=TextConfig(
            data="hf:c4", field="text", tokenizer="sentencepiece", vocab_size=32_000, length=64, mask="prefixes"
        ),
        codec=Embeddings(dim=256, init_std=1e-3),
        process=Gaussian(schedule=LinearSigma(sigma_min=1 / 16, sigma_max=300 / 16)),
        time_density=TimeWarp(bins=100),
        backbone=TransformerConfig(
            width=1024,
            depth=8,
            modulation="film",
            cond_dim=128,
            activation="gelu",
            qk_norm=False,
            absolute_positions=False,
            bias=True,
        ),
        denoiser=EmbeddingDenoiserConfig(output_head=X0Logits(prior=False)),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=200, eta=0.0),
        training=Training(
            steps=1_000_000,
            batch_size=1024,
            lr=1e-4,
            warmup=10_000,
            decay="constant",
            optimizer="adamw",
            beta2=0.99,
            ema=0.9999,
        ),
    )
    return {"default": default, "as_published": published}
