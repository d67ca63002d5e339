"""From a configuration to a model, whose size is known before anything of it is allocated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..core.errors import UserError
from ..core.memory import check_memory
from ..core.registry import build
from ..diffusion.model import DiffusionModel
from ..networks.denoiser import LabelEmbedding
from .config import Config

MAX_BUILT = 64  # blocks that are built to count parameters; the others are as large as the last one

_REMEDIES = {
    "backbone": "backbone.width or backbone.depth",
    "codec": "codec.dim or the size of the vocabulary",
    "tables": "denoiser.ngram_dim or denoiser.ngram_rows",
    "other": "backbone.width, codec.dim, time_density.bins or the size of the vocabulary",
}


def build_model(config: Config, vocab_size: int, *, to_load: bool = False) -> DiffusionModel:
    """The model that a configuration describes, with random weights.

    The weights come from torch's global generator; seed it first (`core.randomness.seeded`) for the same ones. With
    `to_load`, a backbone whose weights will be read from files may be built without them. Raises UserError for a model
    that does not fit into the free memory.
    """
    check_model_memory(config, vocab_size, config.backbone.parameter_bytes)
    return _build(config, vocab_size, to_load)


def check_model_memory(config: Config, vocab_size: int, bytes_per_parameter: int, more: int | float = 0) -> int:
    """The number of parameters. Raises UserError if they and `more` bytes do not fit into the free memory."""
    counts = count_parameters(config, vocab_size)
    total = sum(counts.values())
    largest = max(counts, key=counts.__getitem__)
    remedy = f"lower {_REMEDIES[largest]}"
    check_memory(bytes_per_parameter * total + more, f"A network of {total:,} parameters", remedy)
    return total


def count_parameters(config: Config, vocab_size: int) -> dict[str, int]:
    """The numbers of parameters of the backbone, the codec, the n-gram tables and the other parts.

    The model is built without memory (on torch's meta device). Raises UserError where a size is too large for that.
    """
    depth = config.backbone.depth
    if depth <= MAX_BUILT:
        return dict(_count(config, vocab_size))
    shorter, longer = (
        _count(replace(config, backbone=config.backbone.resized(MAX_BUILT + i)), vocab_size) for i in (-1, 0)
    )
    return {part: longer[part] + (longer[part] - shorter[part]) * (depth - MAX_BUILT) for part in longer}


def build_outline(config: Config, vocab_size: int) -> DiffusionModel:
    """The model on the meta device, which has shapes but no numbers. Raises UserError where it cannot be built."""
    try:
        with torch.device("meta"), _ShapesOnly():
            return _build(config, vocab_size)
    except (OverflowError, RuntimeError) as error:
        raise UserError(
            f"A network with backbone.width {config.backbone.width}, backbone.depth {config.backbone.depth} and a "
            f"vocabulary of {vocab_size:,} tokens cannot be built: {str(error).partition(chr(10))[0]}. Lower its sizes."
        ) from None


def _count(config: Config, vocab_size: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, tensor in _tensors(build_outline(config, vocab_size)):
        part = next((part for part in ("backbone", "codec", "tables") if part in name), "other")
        counts[part] += tensor.numel()
    return counts


def _tensors(model: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


class _ShapesOnly(TorchFunctionMode):
    """Replaces functions whose versions for the meta device take a second to import by others of the same shape."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.normal_:
            return args[0]
        if func is torch.Tensor.__and__:
            return args[0] + args[1]
        return func(*args, **(kwargs or {}))


def _build(config: Config, vocab_size: int, to_load: bool = False) -> DiffusionModel:
    context: dict[str, Any] = {"vocab_size": vocab_size}
    context["codec"] = codec = build(config.codec, **context)
    context["process"] = process = build(config.process, **context)
    time_density = build(config.time_density, **context)
    with config.backbone.building_to_load() if to_load else nullcontext():
        context["backbone"] = backbone = build(config.backbone, **context)
    denoiser = build(config.denoiser, **context, width=backbone.width)
    denoiser.trained_with_conditioning = config.text.conditions_on_tokens
    if config.text.labels:
        denoiser.labels = LabelEmbedding(len(config.text.labels), backbone.width)
    window_length = config.backbone.context_length or config.text.length
    return DiffusionModel(codec, process, time_density, denoiser, window_length)
