"""A model's weights as a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.errors import UserError


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each once, under the first of its names."""
    persistent = module.state_dict().keys()
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items() if name in persistent}


def rounded(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """`tensors_of` with floating-point parameters in `dtype`; buffers, such as counts, keep their own."""
    parameters = {name for name, parameter in module.named_parameters() if parameter.is_floating_point()}
    return {name: tensor.to(dtype) if name in parameters else tensor for name, tensor in tensors_of(module).items()}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file, not atomically (see `core.files.atomic`)."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. Raises UserError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; it should hold the weights.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None


@torch.no_grad()
def load_weights(module: nn.Module, path: Path, *, exclude: str | None = None) -> None:
    """Loads the weights in `path` into `module`, except those whose names begin with `exclude`.

    Raises UserError if names or shapes differ.
    """
    target, source = (
        {name: tensor for name, tensor in tensors.items() if exclude is None or not name.startswith(exclude)}
        for tensors in (tensors_of(module), load_tensors(path))
    )
    if names := sorted(source.keys() - target.keys()):
        raise UserError(f"{path} does not fit this model, which has no {_abbreviated(names)}.")
    if names := sorted(target.keys() - source.keys()):
        raise UserError(f"{path} does not fit this model: it lacks {_abbreviated(names)}.")
    if names := sorted(name for name in target if target[name].shape != source[name].shape):
        shapes = f"{list(source[names[0]].shape)} instead of {list(target[names[0]].shape)}"
        raise UserError(f"{path} does not fit this model: {_abbreviated(names)} has shape {shapes}.")
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _abbreviated(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
