"""Low-rank adapters of language models (LoRA: Hu et al. 2021), through the package `peft`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.files import atomic, make_folder

FOLDER = "adapter"
"""The folder in a run with the adapter as `peft` reads it."""
MARK = "lora_"  # in the names of an adapter's parameters
_MAPS = ("Linear", "Conv1D")  # classes of linear maps; GPT-2 has its own


def add_adapter(network: Any, blocks: nn.ModuleList, rank: int, alpha: float, targets: tuple[str, ...]) -> Any:
    """Adds low-rank maps to the linear maps `targets` (none: all in the layers), and freezes everything else.

    An `alpha` of 0 is twice the rank. Returns the settings of `peft`. Raises UserError if `network` has no such map.
    """
    peft = _import_peft()
    maps = {name.rpartition(".")[2] for name, m in blocks.named_modules() if type(m).__name__ in _MAPS}
    if unknown := set(targets) - maps:
        raise UserError(f"backbone.lora_targets has {min(unknown)!r}; it can be {', '.join(sorted(maps))}.")
    network.requires_grad_(False)
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=sorted(targets or maps))
    peft.inject_adapter_in_model(settings, network)
    for name, parameter in network.named_parameters():
        if MARK in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return settings


def reset_adapter(network: nn.Module) -> None:
    """Draws the weights of an adapter without storage, from torch's generator; it changes nothing at first."""
    for owner in network.modules():
        for name, parameter in list(owner._parameters.items()):
            if parameter is not None and parameter.is_meta:
                setattr(owner, name, nn.Parameter(parameter.new_empty(parameter.shape, device="cpu")))
    for path, parameter in network.named_parameters():
        if f"{MARK}A" in path:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
        elif f"{MARK}B" in path:
            nn.init.zeros_(parameter)


def save_adapter(folder: Path, tensors: Iterable[tuple[str, Tensor]], settings: Any, base: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors from the named tensors of a network.

    `base` is where the adapted weights are.
    """
    settings = copy(settings)
    settings.base_model_name_or_path, settings.inference_mode = base, True
    make_folder(folder)
    settings.save_pretrained(folder)
    named = {
        f"base_model.model.{name.replace('.default.weight', '.weight')}": parameter.detach().cpu().contiguous()
        for name, parameter in tensors
        if MARK in name
    }
    with atomic(folder / "adapter_model.safetensors") as partial:
        save_file(named, partial, metadata={"format": "pt"})


def merge_adapter(network: Any) -> None:
    """Adds the low-rank maps to the weights that they adapt."""
    modules: list[Any] = list(network.modules())
    for module in modules:
        if hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()


def _import_peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError:
        raise UserError("A low-rank adapter needs peft: pip install 'textdiffusion[llm]'.") from None
