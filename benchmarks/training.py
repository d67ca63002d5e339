"""What the quality benchmarks share: their argument lines, and a run of a recipe under a budget of CPU-seconds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.data.config import TextConfig
from textdiffusion.training.run import train


def arguments(doc: str, cpu_seconds: float) -> argparse.ArgumentParser:
    """The options of a benchmark that trains one recipe."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--cpu-seconds", type=float, default=cpu_seconds)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=VALUE")
    return parser


def trained(
    recipe: str,
    text: dict[str, Any],
    *,
    cpu_seconds: float,
    out: Path,
    settings: Sequence[str],
    threads: int,
    seed: int,
) -> dict[str, Any]:
    """Trains into `out`, or goes on where its last checkpoint left off; what that took, as JSON values.

    Leaves where a signal stopped the training.
    """
    torch.set_num_threads(threads)
    config = recipes.get(recipe)()
    training = replace(
        config.training, steps=10**6, max_cpu_seconds=cpu_seconds, num_samples=0, log_every=200, seed=seed
    )
    config = apply_overrides(replace(config, text=TextConfig(**text), training=training), settings)
    finished = train(config, out, console=Console(stderr=True))
    if not finished.complete:  # a row would be of a training cut short
        raise SystemExit(f"Stopped by {finished.signal}; the same command goes on.")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "tokens" in line][-1]
    return {
        "recipe": recipe,
        "set": list(settings),
        "seed": seed,
        "cpu_seconds": cpu_seconds,
        "steps": finished.step,
        "tokens": last["tokens"],
        "process_cpu_seconds": round(last["process_seconds"]),
    }


def trained_as(given: argparse.Namespace, text: dict[str, Any]) -> dict[str, Any]:
    """`trained` under the options of `arguments`."""
    return trained(
        given.recipe,
        text,
        cpu_seconds=given.cpu_seconds,
        out=given.out,
        settings=given.set,
        threads=given.threads,
        seed=given.seed,
    )
