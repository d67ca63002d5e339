"""Simple and Effective Masked Diffusion Language Models (Sahoo et al. 2024)."""

from __future__ import annotations

from ..config import Config, Training
from ..parts import Absorbing, Ancestral, MaskedBound, MaskedLikelihood, MaskedTokens, Tokens, Trunk, Uniform
from ..text.config import TextConfig
from . import variant_of


def mdlm(variant: str = "default") -> Config:
    """Masked diffusion: tokens turn into masks, the network fills them in, the loss is a weighted cross-entropy."""
    parts = {"codec": Tokens(), "density": Uniform(), "denoiser": MaskedTokens(), "likelihood": MaskedLikelihood()}
    return variant_of(
        "mdlm",
        variant,
        {
            "default": Config(
                recipe="mdlm",
                variant="default",
                text=TextConfig(),
                process=Absorbing(),
                trunk=Trunk(width=128, depth=4),
                objective=MaskedBound(max_weight=3.0),
                sampler=Ancestral(steps=128),
                training=Training(),
                **parts,
            ),
        },
    )
