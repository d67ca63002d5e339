"""simple-diffusion-lm (Rowland 2023) and its successor, score-based-diffusion-lm."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import CosineSigma, Embeddings, Gaussian, Gumbel, KarrasSigma, LogSigma, Uniform
from ..networks import EmbeddingDenoiserConfig, X0Logits
from ..objectives import GaussianLikelihood, MSEWithCrossEntropy, ScoreInterpolation
from ..samplers import DDIM
from . import Variants, recipe
from .common import AUTO_TEXT, GELU_BACKBONE, SMALL_WITH_TIME


@recipe
def simple_diffusion_lm() -> Variants:
    """Layer-normed embeddings, squared error and cross-entropy of one prediction, every step noised afresh.

        textdiffusion train simple_diffusion_lm --data my.txt --out runs/mine

    Ten minutes on one CPU core give 2.95 bits per character on tinyshakespeare.

    `as_published` is the script's model: 8 blocks of 512, 64-dimensional embeddings, lines of up to 64 SentencePiece
    tokens, segmented anew each time; it lacks the script's second head, which predicts states. The variant `successor`
    follows its author's later work: see docs/families.md.
    """
    default = Config(
        text=replace(AUTO_TEXT, mask="mixed"),
        codec=Embeddings(dim=16, norm="layer"),
        process=Gaussian(schedule=LogSigma()),
        time_density=Gumbel(),
        backbone=replace(SMALL_WITH_TIME, modulation="film"),
        denoiser=EmbeddingDenoiserConfig(decode_input=True),
        objective=MSEWithCrossEntropy(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64, renoise=True),
        training=Training(optimizer="muon"),
    )
    published = replace(
        default,
        text=TextConfig(
            layout="lines",
            tokenizer="sentencepiece",
            subword_sampling=0.1,
            length=64,
            model_padding=True,
            mask="given_spans",
        ),
        codec=Embeddings(dim=64, init_std=1e-3, norm="affine"),
        process=Gaussian(schedule=CosineSigma(sigma_min=1e-3, sigma_max=100.0)),
        time_density=Uniform(),
        backbone=replace(GELU_BACKBONE, width=512, depth=8, dropout=0.1),
        denoiser=EmbeddingDenoiserConfig(output_head=X0Logits(prior=False)),
        sampler=DDIM(steps=200, renoise=True),
        training=Training(
            steps=800_000,
            batch_size=256,
            lr=1e-4,
            warmup=2000,
            min_lr_ratio=0.1,
            optimizer="adamw",
            weight_decay=1e-4,
            ema=0.0,
        ),
    )
    successor = replace(
        default,
        text=TextConfig(layout="lines", packing=True, mask="mixed"),
        codec=Embeddings(dim=16),
        process=Gaussian(schedule=KarrasSigma()),
        time_density=Uniform(),
        objective=ScoreInterpolation(per_token_noise=0.5),
        sampler=DDIM(steps=64),
    )
    return {"default": default, "as_published": published, "successor": successor}
