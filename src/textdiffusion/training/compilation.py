"""Compiling the backbone where that saves time, and training without where it fails."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from ..config.config import Config
from ..diffusion.model import DiffusionModel

# Floating-point operations of a run, per block, above which compilation saves about twice what it costs. Measured on an
# AVX2 core in float32 at 4 blocks of width 128, batch 32 of length 128: compiling takes 28 (mdlm) to 57 (cdcd)
# CPU-seconds, and then a step of 2e10 operations 0.36 instead of 0.51 (0.46 instead of 0.58) CPU-seconds.
MIN_OPERATIONS, MIN_OPERATIONS_GPU = 5e12, 1e15
# Rough operations per second, for the operations that fit into a time limit.
SPEED, SPEED_GPU = 5e10, 5e13


def compile_skip_reason(
    config: Config, model: DiffusionModel, device: torch.device, compiled_before: bool | None = None
) -> str | None:
    """Why the backbone should not be compiled under `training.compile`; None if it should.

    The decision follows from the configuration and the installed compilers, never from a timing. `compiled_before` is
    the decision at the start of the run (None: it starts now): a resumed run computes the same to the last bit.
    """
    if config.training.compile == "off":
        return "training.compile is off"
    if device.type == "cpu" and not any(map(shutil.which, _compilers())):
        return "there is no C++ compiler (g++ or clang++)"
    if device.type == "mps":
        return "mps is not supported"
    if config.training.compile == "on" or compiled_before:
        return None
    if compiled_before is False:
        return "this run began without"
    training, gpu = config.training, device.type != "cpu"
    tokens = training.batch_size * config.text.length * training.steps
    operations = 6.0 * sum(p.numel() for p in model.parameters()) * tokens
    for seconds in (60.0 * training.max_minutes, training.max_cpu_seconds):
        if seconds:
            operations = min(operations, seconds * (SPEED_GPU if gpu else SPEED))
    if operations < (MIN_OPERATIONS_GPU if gpu else MIN_OPERATIONS) * len(model.denoiser.backbone.blocks):
        return "the run is too short to save the time that compiling takes"
    return None


def compile_backbone(model: DiffusionModel, try_step: Callable[[], object]) -> str:
    """Compiles the backbone in place, and one training step by `try_step`; describes the outcome in a sentence.

    No failure of `torch.compile` ends a run: the backbone then stays uncompiled.
    """
    backbone = model.denoiser.backbone
    start, cpu = time.perf_counter(), _cpu_seconds()
    try:
        backbone.compile(dynamic=False)
        try_step()
    except Exception as error:  # any failure of any compiler backend
        backbone._compiled_call_impl = None
        first_line = (str(error).strip().splitlines() or [""])[0]
        return f"Compilation failed, so the network stays uncompiled: {type(error).__name__}: {first_line[:200]}"
    return f"Compiled in {time.perf_counter() - start:.0f} s ({_cpu_seconds() - cpu:.0f} CPU-seconds)."


def force_eager(model: DiffusionModel) -> AbstractContextManager[object]:
    """Inside, nothing is compiled: batch shapes other than training's are not worth it."""
    if model.denoiser.backbone._compiled_call_impl is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl") if name]


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
