"""Compiling the trunk where that pays, and carrying on without where it cannot."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from ..config import Config
from ..model import Model

WORTHWHILE = 2e14  # floating-point operations of a run above which a CPU wins back the time compilation takes
WORTHWHILE_GPU = 1e17


def reason_against(config: Config, model: Model, device: torch.device, begun: bool | None = None) -> str | None:
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
    parameters = sum(p.numel() for p in model.parameters())
    work = 6.0 * parameters * config.training.steps * config.training.batch_size * config.text.length
    if work < (WORTHWHILE if device.type == "cpu" else WORTHWHILE_GPU):
        return "the run is too short to win back the time it takes"
    return None


def compile_trunk(model: Model, try_out: Callable[[], object]) -> str:
    """Compiles the trunk in place, and one training step by `try_out`; the outcome as a sentence.

    Nothing that `torch.compile` can raise ends a run: the trunk then stays as it was.
    """
    trunk = model.denoiser.trunk
    start, cpu = time.perf_counter(), _cpu_seconds()
    try:
        trunk.compile(dynamic=False)
        try_out()
    except Exception as error:  # any failure of any compiler backend
        trunk._compiled_call_impl = None
        first = str(error).strip().splitlines()[:1] or [""]
        return f"Compilation failed, so training goes on without: {type(error).__name__}: {first[0][:200]}"
    return f"Compiled in {time.perf_counter() - start:.0f} s ({_cpu_seconds() - cpu:.0f} CPU-seconds)."


def eagerly(model: Model) -> AbstractContextManager[object]:
    """Inside, nothing is compiled anew: other batch shapes than training's are not worth it."""
    if model.denoiser.trunk._compiled_call_impl is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl") if name]


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
