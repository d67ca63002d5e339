"""From a configuration to a model."""

from __future__ import annotations

from typing import Any

from ..core.registry import build
from ..diffusion.model import DiffusionModel
from ..networks.denoiser import LabelEmbedding
from .config import Config


def build_model(config: Config, vocab_size: int) -> DiffusionModel:
    """The model that a configuration describes, with random weights.

    The weights come from torch's global generator; seed it first (`core.randomness.seeded`) for the same ones.
    """
    context: dict[str, Any] = {"vocab_size": vocab_size}
    context["codec"] = codec = build(config.codec, **context)
    context["process"] = process = build(config.process, **context)
    time_density = build(config.time_density, **context)
    context["backbone"] = backbone = build(config.backbone, **context)
    denoiser = build(config.denoiser, **context, width=backbone.width)
    denoiser.trained_with_conditioning = config.text.conditions_on_tokens
    if config.text.labels:
        denoiser.labels = LabelEmbedding(len(config.text.labels), backbone.width)
    return DiffusionModel(codec, process, time_density, denoiser, config.text.length)
