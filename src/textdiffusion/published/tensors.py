"""The tensors of published weights, under the names of SEDD's network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..storage.weights import load_tensors

FILES = ("model.safetensors", "pytorch_model.bin", "checkpoints-meta/checkpoint.pth", "checkpoints/last.ckpt")
PREFIX = "backbone."  # MDLM's names are SEDD's with this before them
ANGLES = "rotary_emb.inv_freq"  # the only buffer: it follows from the width of heads


def weights_file(source: Path) -> Path:
    """The file itself, or that of a folder in one of the layouts. Raises UserError where there is none."""
    if source.is_file():
        return source
    found = next((source / name for name in FILES if (source / name).is_file()), None)
    if found is None:
        raise UserError(f"{source} has no weights: it is no file, and no folder with {', '.join(FILES)}.")
    return found


def read(path: Path, allow_pickle: bool) -> tuple[dict[str, Tensor], bool]:
    """The network's tensors, averaged where the file has averages, and whether they had MDLM's prefix.

    Of anything but safetensors tensors alone are read, and only with `allow_pickle`. Raises UserError where the file is
    damaged, or averages do not fit the tensors.
    """
    state = load_tensors(path) if path.suffix == ".safetensors" else _averaged(path, allow_pickle)
    prefixed = any(name.startswith(PREFIX) for name in state)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    _check_angles(path, tensors.pop(ANGLES, None))
    return tensors, prefixed


def _averaged(path: Path, allow_pickle: bool) -> dict[str, Tensor]:
    saved = _unpickled(path, allow_pickle)
    state = saved.get("model", saved.get("state_dict", saved))
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)] if isinstance(state, dict) else []
    if not isinstance(state, dict) or not state or odd:
        raise UserError(f"{path} holds no weights by name{f': {odd[0]} is no tensor' if odd else ''}.")
    ema = saved.get("ema")
    if not isinstance(ema, dict) or "shadow_params" not in ema:
        return state
    names = [name for name in state if not name.endswith(ANGLES)]
    averages = ema["shadow_params"]
    if len(averages) != len(names):
        raise UserError(f"{path} has {len(averages)} averages of {len(names)} tensors; they go by their order.")
    for name, average in zip(names, averages, strict=True):
        if average.shape != state[name].shape:
            raise UserError(f"{path}: the average of {name} has shape {[*average.shape]}, not {[*state[name].shape]}.")
    return state | dict(zip(names, averages, strict=True))


def _unpickled(path: Path, allow_pickle: bool) -> dict[str, Any]:
    if not allow_pickle:
        raise UserError(
            f"{path} is a pickle, which can hold programs. Where you trust its source, add --allow-pickle: tensors "
            "alone are read from it."
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, or is damaged. With what made it, save its weights and ema alone "
            "(torch.save of a dict with state_dict and ema) and convert that."
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds no weights by name but a {type(saved).__name__}.")
    return saved


def _check_angles(path: Path, angles: Tensor | None) -> None:
    if angles is None:
        return
    expected = 10000.0 ** (-torch.arange(len(angles)) / len(angles))
    if not torch.allclose(angles.float(), expected, rtol=0.01):  # it may have been rounded to bfloat16
        raise UserError(f"{path}: {ANGLES} are not the rotary frequencies of base 10000.")
