"""Difformer: Empowering Diffusion Models on the Embedding Space for Text Generation (Gao et al. 2022)."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import Embeddings, Gaussian, Gumbel, LogSigma, SqrtSigma, Uniform
from ..networks import EmbeddingDenoiserConfig, X0Regression
from ..objectives import GaussianLikelihood, MSEWithCrossEntropy
from ..samplers import DDIM
from . import Variants, recipe
from .common import AUTO_TEXT, GELU_BACKBONE, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def difformer() -> Variants:
    """Regressed embeddings, kept apart by an anchor: the cross-entropy of the tokens read from the regressed state.

        textdiffusion train difformer --data my.txt --out runs/mine

    Ten minutes on one CPU core give 3.46 bits per character on tinyshakespeare.

    `as_published` has the size of the paper's translation models, 12 blocks of 512 (theirs: 6 in the encoder and 6 in
    the decoder), with the source as a prefix, noise rescaled by 4 and gradients to the targets. Label smoothing, the
    prediction of lengths and the ranking of candidates are not implemented. Two things differ from the released code:
    it rescales noise by 4 in training alone and decodes with factor 1, while a process here has one noise, which
    training and sampling share; and its table of betas divides by alpha-bar(0), so its levels have slightly less noise.
    """
    default = Config(
        text=replace(AUTO_TEXT, mask="mixed"),
        codec=Embeddings(dim=16, norm="affine"),
        process=Gaussian(schedule=LogSigma()),
        time_density=Gumbel(),
        backbone=SMALL_WITH_TIME,
        denoiser=EmbeddingDenoiserConfig(output_head=X0Regression(mean_from_logits=True), decode_input=True),
        objective=MSEWithCrossEntropy(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64),
        training=Training(optimizer="muon"),
    )
    published = replace(
        default,
        text=TextConfig(layout="lines", tokenizer="bpe", vocab_size=10_000, length=128, mask="prefix"),
        codec=Embeddings(dim=128, norm="affine"),
        process=Gaussian(schedule=SqrtSigma(sigma_min=1e-3, sigma_max=100.0, sigma_scale=4.0)),
        time_density=Uniform(),
        backbone=replace(GELU_BACKBONE, width=512, depth=12, norm_weight=True, norm_bias=True, dropout=0.1),
        denoiser=EmbeddingDenoiserConfig(output_head=X0Regression()),
        objective=MSEWithCrossEntropy(grad_to_targets=True),
        sampler=DDIM(steps=20, eta=1.0),
        training=replace(
            PUBLISHED_TRAINING,
            steps=500_000,
            batch_size=256,
            lr=5e-4,
            warmup=10_000,
            decay="inverse_sqrt",
            beta2=0.99,
            ema=0.0,
        ),
    )
    return {"default": default, "as_published": published}
