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
    saved = module.state_dict().keys()
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items() if name in saved}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. Raises UserError where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except FileNotFoundError:
        raise UserError(f"There are no weights at {path}.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None


@torch.no_grad()
def load_weights(module: nn.Module, path: Path, *, exclude: str | None = None) -> None:
    """Fills `module` from `path`, all but names that begin with `besides`.

    Raises UserError where names or shapes do not fit.
    """
    target, source = (
        {name: tensor for name, tensor in each.items() if exclude is None or not name.startswith(exclude)}
        for each in (tensors_of(module), load_tensors(path))
    )
    if odd := sorted(target.keys() ^ source.keys()):
        raise UserError(f"{path} does not fit this model: {_few(odd)} is in one and not in the other.")
    if odd := sorted(name for name in target if target[name].shape != source[name].shape):
        shapes = f"{list(source[odd[0]].shape)}, not {list(target[odd[0]].shape)}"
        raise UserError(f"{path} does not fit this model: {_few(odd)} has shape {shapes}.")
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _few(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
