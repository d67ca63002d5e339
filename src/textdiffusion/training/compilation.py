"""Compiling the trunk where that pays, and carrying on without where it cannot."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from ..config.config import Config
from ..diffusion.model import DiffusionModel

# Floating-point operations of a run, per block, above which compilation is won back about twice. Measured on an AVX2
# core in float32 at 4 blocks of width 128, batch 32 of length 128: 28 (mdlm) to 57 (cdcd) CPU-seconds to compile, then
# 0.36 instead of 0.51 (0.46 instead of 0.58) CPU-seconds a step of 2e10 operations.
WORTHWHILE, WORTHWHILE_GPU = 5e12, 1e15
RATE, RATE_GPU = 5e10, 5e13  # operations per second, roughly: what a time limit leaves room for


def compile_skip_reason(
    config: Config, model: DiffusionModel, device: torch.device, begun: bool | None = None
) -> str | None:
    """Why the trunk should not be compiled under `training.compile`; None where it should.

    The decision rests on the configuration and the machine's tools, never on a timing. `begun` is what was decided when
    the run began (None: it begins now): a resumed run computes in the same way, to the last bit.
    """
    if config.training.compile == "off":
        return "training.compile is off"
    if device.type == "cpu" and not any(map(shutil.which, _compilers())):
        return "there is no C++ compiler (g++ or clang++)"
    if device.type == "mps":
        return "it is not tried on mps"
    if config.training.compile == "on" or begun:
        return None
    if begun is False:
        return "this run began without"
    training, gpu = config.training, device.type != "cpu"
    work = 6.0 * sum(p.numel() for p in model.parameters()) * training.batch_size * config.text.length * training.steps
    for seconds in (60.0 * training.max_minutes, training.max_cpu_seconds):
        if seconds:
            work = min(work, seconds * (RATE_GPU if gpu else RATE))
    if work < (WORTHWHILE_GPU if gpu else WORTHWHILE) * len(model.denoiser.backbone.blocks):
        return "the run is too short to win back the time it takes"
    return None


def compile_backbone(model: DiffusionModel, try_out: Callable[[], object]) -> str:
    """Compiles the trunk in place, and one training step by `try_out`; the outcome as a sentence.

    Nothing that `torch.compile` can raise ends a run: the trunk then stays as it was.
    """
    backbone = model.denoiser.backbone
    start, cpu = time.perf_counter(), _cpu_seconds()
    try:
        backbone.compile(dynamic=False)
        try_out()
    except Exception as error:  # any failure of any compiler backend
        backbone._compiled_call_impl = None
        first = str(error).strip().splitlines()[:1] or [""]
        return f"Compilation failed, so training goes on without: {type(error).__name__}: {first[0][:200]}"
    return f"Compiled in {time.perf_counter() - start:.0f} s ({_cpu_seconds() - cpu:.0f} CPU-seconds)."


def force_eager(model: DiffusionModel) -> AbstractContextManager[object]:
    """Inside, nothing is compiled anew: other batch shapes than training's are not worth it."""
    if model.denoiser.backbone._compiled_call_impl is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl") if name]


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
