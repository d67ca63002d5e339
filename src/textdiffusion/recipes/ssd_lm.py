"""SSD-LM (Han, Kumar and Tsvetkov 2022) and TESS (Karimi Mahabadi et al. 2023)."""

from __future__ import annotations

from dataclasses import replace

from ..config.config import Config, Training
from ..data.config import TextConfig
from ..parts import (
    DDIM,
    Gaussian,
    GaussianLikelihood,
    Gumbel,
    ScoreInterpolation,
    Simplex,
    SimplexDenoiserConfig,
    TransformerConfig,
    Uniform,
    X0Logits,
)
from ..samplers.projections import SampleProjection
from . import variant_of


def ssd_lm(variant: str = "default") -> Config:
    """Diffusion on the simplex: a token is a corner of it, noised; the network reads soft tokens and is sure of none.

        textdiffusion train ssd_lm --data my.txt --out runs/mine

    Its state is a number per token of the vocabulary, so it is for small ones. The default reads the state by Bayes'
    rule, feeds its own estimate back, and steps as `cdcd` does.

    `tess` has the choices of TESS: the paper's softmax of the shrunken state, its average with the network's earlier
    estimate, a cosine schedule, and steps that noise the prediction afresh.

    `as_published` is SSD-LM (section 4): RoBERTa-large's size and tokens (vocab.json and merges.txt in a folder
    `roberta`), a sampled token in place of each prediction, 1,000 steps. The paper writes blocks of 25 tokens one after
    the other; here all positions that are not given are written at once. A vocabulary of 50,265 makes the table of
    corners alone 10 GB.
    """
    default = Config(
        recipe="ssd_lm",
        variant="default",
        text=TextConfig(mask="mixed"),
        codec=Simplex(),
        process=Gaussian(schedule="log_sigma"),
        time_density=Gumbel(),
        backbone=TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32),
        denoiser=SimplexDenoiserConfig(reading="bayes"),
        objective=ScoreInterpolation(),
        likelihood=GaussianLikelihood(),
        sampler=DDIM(steps=64),
        training=Training(optimizer="muon"),
    )
    # K = 5 times the cosine schedule's sigma; 0.05 to 20 norms of 2 K, as in the default.
    cosine = Gaussian(schedule="cosine", sigma_scale=5.0, s=1e-4)
    tess = replace(
        default,
        variant="tess",
        process=cosine,
        time_density=Uniform(),
        denoiser=SimplexDenoiserConfig(output_head=X0Logits(prior=False), reading="shrunken"),
        sampler=DDIM(steps=128, renoise=True),
    )
    published = replace(
        tess,
        variant="as_published",
        text=TextConfig(
            data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="roberta", length=200, mask="prefix"
        ),
        process=replace(cosine, sigma_min=1e-4),
        backbone=TransformerConfig(
            width=1024,
            depth=24,
            modulation="film",
            cond_dim=32,
            activation="gelu",
            qk_norm=False,
            bias=True,
            norm_weight=True,
            norm_bias=True,
            dropout=0.1,
        ),
        denoiser=SimplexDenoiserConfig(output_head=X0Logits(prior=False), reading="shrunken", self_conditioning=False),
        sampler=DDIM(steps=1000, renoise=True, projection=SampleProjection(top_p=0.95)),
        training=Training(
            steps=100_000,
            batch_size=6144,
            lr=1e-4,
            warmup=2000,
            decay="linear",
            optimizer="adamw",
            beta2=0.999,
            ema=0.0,
        ),
    )
    return variant_of("ssd_lm", variant, {"default": default, "tess": tess, "as_published": published})
