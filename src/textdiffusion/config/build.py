"""From a configuration to a model."""

from __future__ import annotations

from typing import Any

from ..core.registry import Part, build
from ..diffusion.model import DiffusionModel
from ..networks.labels import LabelEmbedding
from .config import Config


def build_model(config: Config, vocab_size: int) -> DiffusionModel:
    """The model that a configuration describes, with random weights.

    The weights come from torch's global generator; seed it first (`core.devices.seeded`) for the same ones.
    """
    context: dict[str, Any] = {"vocab_size": vocab_size}
    context["codec"] = codec = _built(config.codec, vocab_size, **context)
    context["process"] = process = _built(config.process, codec, **context)
    time_density = _built(config.time_density, codec, process, **context)
    context["backbone"] = backbone = _built(config.backbone, **context)
    denoiser = _built(config.denoiser, backbone, codec, process, **context)
    denoiser.trained_with_conditioning = config.text.conditions_on_tokens
    if config.text.labels:
        denoiser.labels = LabelEmbedding(len(config.text.labels), backbone.width)
    return DiffusionModel(codec, process, time_density, denoiser, config.text.length)


def _built(part: Part, *arguments: Any, **context: Any) -> Any:
    made: Any = part
    return build(part, **context) if type(part).module else made.build(*arguments)
