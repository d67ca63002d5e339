"""mini CDCD (github.com/markov-bio/cdcd, 2024): continuous diffusion of categorical data, small and open."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import Cauchy, Embeddings, Gaussian, LinearSigma, LogSigma
from ..networks import EmbeddingDenoiserConfig, TransformerConfig, X0Regression
from ..objectives import GaussianLikelihood, ScoreInterpolation
from ..samplers import DDIM
from . import Variants, recipe
from .common import AUTO_TEXT, PUBLISHED_TRAINING, SMALL_WITH_TIME

FINAL_LR_RATIO = 0.97**380  # the learning rate falls by 3 % every 100 steps


@recipe
def mini_cdcd() -> Variants:
    """Embedding diffusion whose network is preconditioned as in images, with an arctan curve as its learned warp.

        textdiffusion train mini_cdcd --data my.txt --out runs/mine

    A smaller relative of `cdcd`: the network regresses the clean vector, and tied logits read the tokens from it. Ten
    minutes on one CPU core give 2.98 bits per character on tinyshakespeare.

    `as_published` is the 140-million-parameter model of the notebook: TinyStories, one story cut to 64 of BERT's tokens
    (its vocab.txt in a folder `bert`), noise from 0.01 to 200. Our block differs: attention as wide as the features
    (theirs: 256 and 4096 wide) and a feed-forward layer with a non-linearity, so the model is 576 wide to be as large.
    Padding is masked out, and the head is normalised like the input. The notebook does not say how long it was trained;
    here for 40,000 steps with a warm-up of 2,000.
    """
    head = X0Regression(preconditioning="karras", mean_from_logits=True)
    default = Config(
        text=replace(AUTO_TEXT, mask="mixed"),
        codec=Embeddings(dim=16),
        process=Gaussian(schedule=LogSigma()),
        time_density=Cauchy(),
        backbone=SMALL_WITH_TIME,
        denoiser=EmbeddingDenoiserConfig(output_head=head, decode_input=True),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64),
        training=Training(optimizer="muon"),
    )
    published = replace(
        default,
        text=TextConfig(
            data="hf:roneneldan/TinyStories",
            field="text",
            tokenizer="file",
            tokenizer_path="bert/vocab.txt",
            layout="documents",
            length=64,
        ),
        codec=Embeddings(dim=256),
        process=Gaussian(schedule=LinearSigma(sigma_min=0.01 / 16, sigma_max=200 / 16)),
        time_density=Cauchy(midpoint=3.0171 / 16, scale=1.7785 / 16, uniform_mix=0.0),
        backbone=TransformerConfig(
            width=576, depth=32, modulation="adaln", cond_dim=64, activation="gelu", absolute_positions=False
        ),
        denoiser=EmbeddingDenoiserConfig(output_head=head, self_conditioning=False),
        sampler=DDIM(steps=1000, eta=0.0),
        training=replace(
            PUBLISHED_TRAINING,
            steps=40_000,
            batch_size=64,
            lr=5e-3,
            warmup=2000,
            decay="exponential",
            min_lr_ratio=FINAL_LR_RATIO,
            ema=0.0,
        ),
    )
    return {"default": default, "as_published": published}
