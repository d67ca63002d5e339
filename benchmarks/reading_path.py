"""Lists the files that one training step and one sampled text of a recipe execute: what a reader has to read.

python benchmarks/reading_path.py mdlm
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

import textdiffusion
from tests.training.tiny import tiny
from textdiffusion import TextDiffusion
from textdiffusion.core.randomness import Rng
from textdiffusion.samplers.base import Request
from textdiffusion.training.run import train
from textdiffusion.training.trainer import Trainer

PACKAGE = Path(textdiffusion.__file__).parent


def main(recipe: str = "mdlm") -> None:
    """Prints every file with its lines, and the totals."""
    called: set[str] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            called.add(frame.f_code.co_filename)

    step = Trainer.step

    def profiled_step(self: Trainer, *args: Any, **options: Any) -> Any:
        sys.setprofile(profile)
        try:
            return step(self, *args, **options)
        finally:
            sys.setprofile(None)

    setattr(Trainer, "step", profiled_step)  # noqa: B010
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = tiny(recipe, folder, steps=2, eval_every=100, log_every=100)
        train(config, folder / "run", cache=folder / "cache", console=Console(quiet=True), device="cpu")
        run = TextDiffusion.from_pretrained(folder / "run", device="cpu")
    request, rng = Request(run.empty_batch(1, 8), 4), Rng.of(0, 1)
    with torch.no_grad():
        sys.setprofile(profile)
        for _ in run.config.sampler(run.model, request, rng=rng):
            pass
        sys.setprofile(None)
    counts = {Path(file): len(Path(file).read_text(encoding="utf-8").splitlines()) for file in called}
    for file, count in sorted(counts.items()):
        print(f"{count:5} {file.relative_to(PACKAGE)}")
    print(f"{sum(counts.values()):5} lines in {len(counts)} files")


if __name__ == "__main__":
    main(*sys.argv[1:])
