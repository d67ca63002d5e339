"""Bits per character on held-out text after a budget of CPU-seconds.

    python benchmarks/held_out.py RECIPE --data FILE --cpu-seconds 600 --out FOLDER [--set trunk.depth=2 ...]

Trains on the first 90 % of the text (or what --test-fraction leaves) and measures the averaged and raw weights on the
rest, in non-overlapping windows of the training length, until the Monte-Carlo error is below 0.01 bits. The budget is
the CPU time of all threads in training steps; compilation is stated apart. Prints one JSON line. A run that was
stopped continues where its last checkpoint left off.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from textdiffusion import recipes
from textdiffusion.api import TextDiffusion
from textdiffusion.evaluation.baseline import kneser_ney
from textdiffusion.evaluation.heldout import held_out, training_corpus
from textdiffusion.evaluation.likelihood import bits_per_character
from textdiffusion.overrides import changed
from textdiffusion.text.preparation import default_cache
from textdiffusion.training.loop import train


def main() -> None:
    """One run, one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--cpu-seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test-fraction", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = recipes.get(arguments.recipe)()
    text = replace(config.text, data=arguments.data, valid_fraction=0.0, test_fraction=arguments.test_fraction)
    training = replace(config.training, steps=10**6, max_cpu_seconds=arguments.cpu_seconds, samples=0, log_every=200)
    config = changed(replace(config, text=text, training=training), arguments.set)
    finished = train(config, arguments.out, console=Console(stderr=True))

    row = {"recipe": arguments.recipe, "set": arguments.set, "cpu_seconds": arguments.cpu_seconds}
    lines = [json.loads(line) for line in (arguments.out / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "tokens" in line][-1]
    row |= {"steps": finished.step, "tokens": last["tokens"], "process_cpu_seconds": round(last["process_seconds"])}
    for weights in ("ema", "raw"):
        model = TextDiffusion.from_pretrained(str(arguments.out), weights=weights)
        kept = held_out(model, default_cache())
        found = bits_per_character(model.model, kept, batch_size=256)
        row |= {weights: round(found.bits, 4), f"{weights}_error": round(found.monte_carlo_error, 4)}
    row["parameters"] = sum(p.numel() for p in model.model.parameters())
    counted = kneser_ney(training_corpus(model, default_cache()).train.shard, kept, model.tokenizer.vocab_size)
    row |= {"windows": found.windows, "characters": found.characters, "kneser_ney": round(counted.bits, 4)}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
