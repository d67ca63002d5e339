"""Whether training diverges in bfloat16: a tiny model, several seeds, the objective's weights uncut.

    python benchmarks/divergence.py sedd --data FILE --out FOLDER [--variant uniform] [--seeds 10] [--steps 3000]
        [--set objective.max_weight=0 training.lr=1e-2 ...]

Prints one JSON line per seed: the step at which it diverged (null: never), the mean of the first and last tenth of the
logged losses, the largest of them, and the largest gradient norm before clipping. A seed that was stopped continues
where its last checkpoint left off; one that is finished is read again.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from textdiffusion import recipes
from textdiffusion.config.config import Config
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.training.loop import NonFiniteLoss
from textdiffusion.training.run import train

SMALL = ["backbone.width=64", "backbone.depth=1", "backbone.mlp_ratio=2", "text.length=32"]


def one_seed(config: Config, out: Path) -> dict[str, Any]:
    """Trains, and says what became of the losses."""
    diverged = None
    try:
        train(config, out, console=Console(stderr=True))
    except NonFiniteLoss as error:
        match = re.search(r"step (\d+)", str(error))
        diverged = int(match[1]) if match else -1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["event"] == "logged"]
    losses = [line["loss"] for line in logged]
    tenth = max(1, len(losses) // 10)
    return {
        "seed": config.training.seed,
        "diverged": diverged,
        "first": round(sum(losses[:tenth]) / tenth, 4) if losses else None,
        "last": round(sum(losses[-tenth:]) / tenth, 4) if losses else None,
        "largest": max(losses, default=None),
        "largest_gradient": max((line["grad_norm"] for line in logged), default=None),
    }


def main() -> None:
    """One run and one line per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--variant", default="default")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = recipes.get(arguments.recipe)(arguments.variant)
    for seed in range(arguments.seeds):
        training = replace(
            config.training,
            steps=arguments.steps,
            dtype="bfloat16",
            batch_size=16,
            num_samples=0,
            eval_every=arguments.steps,
            eval_windows=8,
            checkpoint_every=max(1, arguments.steps // 10),
            seed=seed,
        )
        text = replace(config.text, data=arguments.data)
        seeded = apply_overrides(replace(config, text=text, training=training), [*SMALL, *arguments.set])
        row = {"recipe": config.recipe, "variant": config.variant, "set": arguments.set, "steps": arguments.steps}
        print(json.dumps({**row, **one_seed(seeded, arguments.out / f"seed-{seed}")}), flush=True)


if __name__ == "__main__":
    main()
