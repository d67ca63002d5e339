"""Continuous diffusion for categorical data (Dieleman et al. 2022)."""

from __future__ import annotations

from ..config import Config, Training
from ..parts import Embeddings, Gaussian, GaussianLikelihood, Gumbel, NoisyStates, OneStep, ScoreInterpolation, Trunk
from ..text.config import TextConfig
from . import variant_of


def cdcd(variant: str = "default") -> Config:
    """Embedding diffusion trained by cross-entropy alone: normalised embeddings, score interpolation, a learned warp."""
    return variant_of(
        "cdcd",
        variant,
        {
            "default": Config(
                recipe="cdcd",
                variant="default",
                text=TextConfig(mask="none"),
                codec=Embeddings(dim=32),
                process=Gaussian(),
                density=Gumbel(),
                trunk=Trunk(width=128, depth=4, modulation="adaln", conditioning=32),
                denoiser=NoisyStates(),
                objective=ScoreInterpolation(),
                likelihood=GaussianLikelihood(),
                sampler=OneStep(steps=64),
                training=Training(),
            ),
        },
    )
