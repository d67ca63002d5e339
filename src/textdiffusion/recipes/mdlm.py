"""Simple and Effective Masked Diffusion Language Models (Sahoo et al. 2024)."""

from __future__ import annotations

from ..config import Config, Training
from ..parts import Absorbing, Ancestral, MaskedBound, MaskedLikelihood, MaskedTokens, Tokens, Trunk, Uniform
from ..text.config import TextConfig
from . import variant_of


def mdlm(variant: str = "default") -> Config:
    """Masked diffusion: tokens turn into masks, the network fills them in, the loss is a weighted cross-entropy.

        textdiffusion train mdlm --data my.txt --out runs/mine

    Five thousand steps of 32 x 128 characters take about 40 minutes on two cores without bfloat16 and bring
    tinyshakespeare to about 2.8 bits per character; docs/experiments.md has the figures.

    `as_published` is the paper's OpenWebText model (section 5): 12 layers of 768, one million steps,
    GPT-2's tokens (vocab.json and merges.txt in a folder `gpt2`).
    """
    default = Config(
        recipe="mdlm",
        variant="default",
        text=TextConfig(),
        codec=Tokens(),
        process=Absorbing(schedule="linear"),
        density=Uniform(),
        trunk=Trunk(width=128, depth=4),
        denoiser=MaskedTokens(context_dim=32),
        objective=MaskedBound(max_weight=3.0),
        likelihood=MaskedLikelihood(),
        sampler=Ancestral(steps=128),
        training=Training(optimizer="muon", lr=6e-3, muon_lr=0.03),
    )
    published = Config(
        recipe="mdlm",
        variant="as_published",
        text=TextConfig(data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="gpt2", length=1024),
        codec=Tokens(),
        process=Absorbing(schedule="log_linear"),
        density=Uniform(),
        # The paper's network keeps the adaptive layer norm of its ancestor and feeds it a constant.
        trunk=Trunk(
            width=768,
            depth=12,
            modulation="adaln",
            conditioning=128,
            activation="gelu",
            qk_norm=False,
            absolute=False,
            bias=True,
            norm_weight=True,
            dropout=0.1,
        ),
        denoiser=MaskedTokens(time=False),
        objective=MaskedBound(max_weight=0.0),
        likelihood=MaskedLikelihood(),
        sampler=Ancestral(steps=1000),
        training=Training(
            steps=1_000_000,
            batch_size=512,
            lr=3e-4,
            warmup=2500,
            decay="constant",
            optimizer="adamw",
            beta2=0.999,
            ema=0.9999,
        ),
    )
    return variant_of("mdlm", variant, {"default": default, "as_published": published})
