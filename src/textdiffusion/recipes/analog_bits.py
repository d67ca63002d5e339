"""Analog Bits: generating discrete data using diffusion models with self-conditioning (Chen et al. 2022)."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import Bits, CosineSigma, Gaussian, Gumbel, LogSigma, Uniform
from ..networks import EmbeddingDenoiserConfig, UNetConfig, X0Logits, X0Regression
from ..objectives import GaussianLikelihood, SquaredError
from ..samplers import DDIM, DPMSolver
from . import Variants, recipe
from .common import AUTO_TEXT, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def analog_bits() -> Variants:
    """Diffusion of the bits of each token's number: no embeddings to learn, a state of ceil(log2 V) numbers.

        textdiffusion train analog_bits --data my.txt --out runs/mine

    The network predicts the token behind the noisy bits; the loss is the squared error of the mean of that prediction.
    Tokens get random codes; docs/experiments.md compares codes, heads and losses. The variant `unet` has a U-Net of
    1.1 million parameters. Ten minutes on one CPU core give 3.01 bits per character on tinyshakespeare.

    `as_published` has the settings of the public character model (jon-tow/char-diffusion): the 8 bits of each byte, the
    cosine schedule, regression, 2,000 steps and a time offset of 2. Its U-Net has the skip connections that the public
    code lacks, and 92 million parameters instead of 435, because its channels do not multiply twice.
    """
    default = Config(
        text=replace(AUTO_TEXT, mask="mixed"),
        codec=Bits(code="random"),
        process=Gaussian(schedule=LogSigma()),
        time_density=Gumbel(midpoint=0.36, scale=0.5),
        backbone=SMALL_WITH_TIME,
        denoiser=EmbeddingDenoiserConfig(output_head=X0Logits(), decode_input=True),
        objective=SquaredError(),
        likelihood=GaussianLikelihood(),
        sampler=DPMSolver(steps=64),
        training=Training(optimizer="muon"),
    )
    published = replace(
        default,
        text=TextConfig(data="war_and_peace.txt", tokenizer="bytes", length=64),
        codec=Bits(),
        process=Gaussian(schedule=CosineSigma(sigma_min=1e-3, sigma_max=1e3)),
        time_density=Uniform(),
        backbone=UNetConfig(width=256, depth=9, multipliers=(1, 2, 4), cond_dim=256),
        denoiser=EmbeddingDenoiserConfig(output_head=X0Regression(bias=False)),
        sampler=DDIM(steps=2000, time_offset=2.0),
        training=replace(PUBLISHED_TRAINING, steps=200_000, batch_size=64, lr=2e-4, warmup=0, beta2=0.99),
    )
    return {"default": default, "unet": replace(default, backbone=UNetConfig()), "as_published": published}
