"""The tensors of published weights, under the names of SEDD's network."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..storage.weights import check_finite, load_tensors

FILES = ("model.safetensors", "pytorch_model.bin", "checkpoints-meta/checkpoint.pth", "checkpoints/last.ckpt")
SUFFIXES = {".safetensors", ".bin", ".pth", ".pt", ".ckpt"}
WRAPPERS = re.compile(r"^(?:module\.)+|\b_orig_mod\.")
"""What DistributedDataParallel and torch.compile add to the names of a module that is saved while wrapped."""
PREFIX = "backbone."  # MDLM's names are SEDD's with this prefix
BUFFERS = ("sampling_eps_min", "sampling_eps_max")  # of BD3LM: the range of mask probabilities in training
ANGLES = "rotary_emb.inv_freq"  # the only buffer; it follows from the width of heads


def find_weights(source: Path) -> Path:
    """The weights file `source`, or the one in a folder with a known layout. Raises UserError if there is none."""
    if source.is_file():
        return source
    if path := next((source / name for name in FILES if (source / name).is_file()), None):
        return path
    others = sorted(p for folder in (source, source / "checkpoints") for p in folder.glob("*") if p.suffix in SUFFIXES)
    if len(others) == 1:
        return others[0]
    if others:
        raise UserError(f"{source} has {len(others)} files of weights; name one of them, such as {others[0]}.")
    raise UserError(f"{source} has no weights; it must be a file, or a folder with one of {', '.join(FILES)}.")


def read_tensors(path: Path, allow_pickle: bool) -> tuple[dict[str, Tensor], bool]:
    """The network's tensors, averaged weights if the file has them, and whether their names had MDLM's prefix.

    Files other than safetensors are read only with `allow_pickle`, and then only their tensors. Raises UserError if the
    file is damaged, a number is not finite, or averages do not fit the tensors.
    """
    saved = load_tensors(path) if path.suffix == ".safetensors" else _read_averages(path, allow_pickle)
    check_finite(saved, path)
    state = {_unwrapped(name): tensor for name, tensor in saved.items()}
    prefixed = any(name.startswith(PREFIX) for name in state)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    if prefixed:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in BUFFERS}
    _check_angles(path, tensors.pop(ANGLES, None))
    return tensors, prefixed


def _unwrapped(name: str) -> str:
    while (shorter := WRAPPERS.sub("", name)) != name:
        name = shorter
    return name


def _read_averages(path: Path, allow_pickle: bool) -> dict[str, Tensor]:
    checkpoint = _unpickle(path, allow_pickle)
    state = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} has no weights by name.")
    if other := next((name for name, value in state.items() if not isinstance(value, Tensor)), None):
        raise UserError(f"{path} has no weights by name: {other} is not a tensor.")
    ema = checkpoint.get("ema")
    if not isinstance(ema, dict) or "shadow_params" not in ema:
        return state
    names = [name for name in state if not name.endswith(ANGLES)]
    averages = ema["shadow_params"]
    if len(averages) != len(names):
        raise UserError(f"{path} has {len(averages)} averages for {len(names)} tensors, which must match in order.")
    for name, average in zip(names, averages, strict=True):
        if average.shape != state[name].shape:
            raise UserError(f"{path}: the average of {name} has shape {[*average.shape]}, not {[*state[name].shape]}.")
    return state | dict(zip(names, averages, strict=True))


def _unpickle(path: Path, allow_pickle: bool) -> dict[str, Any]:
    if not allow_pickle:
        raise UserError(
            f"{path} is a pickle, which can hold programs. If you trust its source, add --allow-pickle; only its "
            "tensors are read."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, or is damaged. Load it with the code that wrote it, save only its "
            "weights and averages (torch.save of a dict with state_dict and ema), and convert that file."
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} has no weights by name but a {type(checkpoint).__name__}.")
    return checkpoint


def _check_angles(path: Path, angles: Tensor | None) -> None:
    if angles is None:
        return
    expected = 10000.0 ** (-torch.arange(len(angles)) / len(angles))
    if not torch.allclose(angles.float(), expected, rtol=0.01):  # they may have been rounded to bfloat16
        raise UserError(f"{path}: {ANGLES} are not the rotary frequencies of base 10000.")
