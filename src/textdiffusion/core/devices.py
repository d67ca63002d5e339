"""The device, and the dtype in which features are computed there."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from .errors import UserError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device called `name`; `auto` is CUDA, else MPS, else the CPU.

    Raises UserError for an unknown name, and where the machine lacks the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_available in available.items() if is_available)
    if name not in available:
        raise UserError(f"device is {name!r}; it can be auto, cpu, cuda or mps.")
    if not available[name]:
        others = ", ".join(device for device, is_available in available.items() if is_available)
        build = f" (this PyTorch, {torch.__version__}, is built without it)" if not _built_for(name) else ""
        raise UserError(f"device is {name!r}, but PyTorch finds none on this machine{build}; it finds {others}.")
    if name == "cuda" and local_rank >= (count := torch.cuda.device_count()):
        raise UserError(
            f"Process {local_rank} of this machine has no GPU of its own: the machine has {count}. "
            f"Start at most {count} processes."
        )
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)


def choose_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The compute dtype and the reason for it, as half a sentence. Raises UserError for an unknown name."""
    if name not in get_args(DtypeName):
        raise UserError(f"dtype is {name!r}; it can be {', '.join(get_args(DtypeName))}.")
    if name != "auto":
        return getattr(torch, name), "as configured"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "this GPU has bfloat16 matrix units"
        return torch.float32, "this GPU has no bfloat16 matrix units"
    if device.type == "cpu":
        if torch.cpu._is_amx_tile_supported():
            return torch.bfloat16, "this CPU has AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return torch.bfloat16, "this CPU has AVX512-BF16"
        return torch.float32, "this CPU has no bfloat16 instructions"
    return torch.float32, f"bfloat16 is not used on {device.type}"


def _built_for(name: str) -> bool:
    return torch.backends.cuda.is_built() if name == "cuda" else torch.backends.mps.is_built()
