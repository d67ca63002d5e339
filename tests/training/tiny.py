"""A run small enough for tests, in this process or, as a script, in one of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from textdiffusion import recipes
from textdiffusion.config.config import Config
from textdiffusion.data.config import MaskKind

LENGTH, BATCH = 16, 8


def tiny(recipe: str, folder: Path, mask: MaskKind = "none", **training: Any) -> Config:
    """The recipe (`NAME` or `NAME/VARIANT`) at 64 features and one block, on a text file made in `folder`."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(300)), encoding="utf-8")
    name, _, variant = recipe.partition("/")
    config = recipes.get(name)(variant or "default")
    backbone = replace(config.backbone, width=64, depth=1)
    settings: dict[str, Any] = {
        "steps": 10,
        "batch_size": BATCH,
        "warmup": 2,
        "log_every": 1,
        "eval_every": 5,
        "eval_windows": 8,
        "num_samples": 0,
        "compile": "off",
        "dtype": "float32",
        "optimizer": "adamw",
        "lr": 3e-3,
        **training,
    }
    sampler: Any = config.sampler
    chosen: dict[str, Any] = {"tokenizer": "characters", "layout": "stream"} if config.text.layout == "auto" else {}
    return replace(
        config,
        text=replace(config.text, data=str(text), length=LENGTH, mask=mask, **chosen),
        backbone=backbone,
        sampler=replace(sampler, steps=min(sampler.steps, 4)),
        training=replace(config.training, **settings),
    )


if __name__ == "__main__":
    import torch

    from textdiffusion.training.run import train

    torch.set_num_threads(1)
    recipe, folder, out, *settings = sys.argv[1:]
    values = {k: type(getattr(tiny("mdlm", Path(folder)).training, k))(v) for k, v in (s.split("=") for s in settings)}
    last = train(tiny(recipe, Path(folder), **values), out, cache=Path(folder) / "cache", device="cpu")
    sys.stdout.write("finished" if last.complete else f"stopped by {last.signal}")
    sys.stdout.write(f" {last.step}\n")
