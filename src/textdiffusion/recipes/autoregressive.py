"""The same network made causal: the baseline of every table."""

from __future__ import annotations

from ..config import Config, Training
from ..parts import LeftToRight, LeftToRightOrder, NextToken, NextTokenLikelihood, NextTokens, Tokens, Trunk, Uniform
from ..text.config import TextConfig
from . import variant_of


def autoregressive(variant: str = "default") -> Config:
    """Left-to-right prediction with an exact likelihood: the same network made causal.

        textdiffusion train autoregressive --data my.txt --out runs/mine

    It reaches fewer bits per character than any diffusion model of its cost, and cannot see what comes after a gap.
    """
    return variant_of(
        "autoregressive",
        variant,
        {
            "default": Config(
                recipe="autoregressive",
                variant="default",
                text=TextConfig(),
                codec=Tokens(),
                process=LeftToRightOrder(),
                density=Uniform(),
                trunk=Trunk(width=128, depth=4, reach=4),
                denoiser=NextTokens(context_dim=32),
                objective=NextToken(),
                likelihood=NextTokenLikelihood(),
                sampler=LeftToRight(),
                training=Training(optimizer="muon", lr=1e-2),
            ),
        },
    )
