"""SSD-LM (Han, Kumar and Tsvetkov 2022) and TESS (Karimi Mahabadi et al. 2023)."""

from dataclasses import replace

from ..config import Config, TextConfig, Training
from ..diffusion import CosineSigma, Gaussian, Gumbel, LogSigma, Simplex, Uniform
from ..networks import SimplexDenoiserConfig, X0Logits
from ..objectives import GaussianLikelihood, ScoreInterpolation
from ..samplers import DDIM, SampleProjection
from . import Variants, recipe
from .common import AUTO_TEXT, GELU_BACKBONE, PUBLISHED_TRAINING, SMALL_WITH_TIME


@recipe
def ssd_lm() -> Variants:
    """Diffusion on the simplex: a token is a corner of it, noised; the network reads soft tokens.

        textdiffusion train ssd_lm --data my.txt --out runs/mine

    The state has one number per token of the vocabulary, so the vocabulary should be small. The default reads the state
    by Bayes' rule, feeds its own estimate back, and steps as `cdcd` does. Ten minutes on one CPU core give 3.00 bits
    per character on tinyshakespeare.

    The variant `tess` has the choices of TESS: the softmax of the shrunken state, averaged with the network's earlier
    estimate, a cosine schedule, and steps that noise the prediction afresh.

    `as_published` is SSD-LM (section 4): RoBERTa-large's size and tokens (vocab.json and merges.txt in a folder
    `roberta`), a sampled token in place of each prediction, 1,000 steps. The paper writes blocks of 25 tokens one after
    the other; here all free positions are written at once. With a vocabulary of 50,265 the table of corners alone takes
    10 GB.
    """
    default = Config(
        text=replace(AUTO_TEXT, mask="mixed"),
        codec=Simplex(),
        process=Gaussian(schedule=LogSigma()),
        time_density=Gumbel(),
        backbone=SMALL_WITH_TIME,
        denoiser=SimplexDenoiserConfig(reading="bayes"),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64),
        training=Training(optimizer="muon"),
    )
    # K = 5 times the cosine schedule's sigma; 0.05 to 20 norms of 2 K, as in the default.
    cosine = CosineSigma(sigma_scale=5.0, s=1e-4)
    tess = replace(
        default,
        process=Gaussian(schedule=cosine),
        time_density=Uniform(),
        denoiser=SimplexDenoiserConfig(output_head=X0Logits(prior=False), reading="shrunken"),
        sampler=DDIM(steps=128, renoise=True),
    )
    published = replace(
        tess,
        text=TextConfig(
            data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="roberta", length=200, mask="prefix"
        ),
        process=Gaussian(schedule=replace(cosine, sigma_min=1e-4)),
        backbone=replace(
            GELU_BACKBONE,
            width=1024,
            depth=24,
            cond_dim=32,
            absolute_positions=True,
            norm_weight=True,
            norm_bias=True,
            dropout=0.1,
        ),
        denoiser=SimplexDenoiserConfig(output_head=X0Logits(prior=False), reading="shrunken", self_conditioning=False),
        sampler=DDIM(steps=1000, renoise=True, projection=SampleProjection(top_p=0.95)),
        training=replace(
            PUBLISHED_TRAINING, steps=100_000, batch_size=6144, lr=1e-4, warmup=2000, decay="linear", ema=0.0
        ),
    )
    return {"default": default, "tess": tess, "as_published": published}
