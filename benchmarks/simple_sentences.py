"""How many samples of a small closed language are legal, and how many of them new, after a budget of CPU-seconds.

    python benchmarks/simple_sentences.py RECIPE --data mtd_simple_train.txt --cpu-seconds 180 --out FOLDER

The language is "The COLOUR PRODUCE is STATE."; a model that knew it perfectly would be novel in about 62 to 64 % of its
sentences. 1,000 samples at temperature 1 from the averaged and the raw weights. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from textdiffusion import recipes
from textdiffusion.api import TextDiffusion
from textdiffusion.evaluation.metrics import ProduceSentences
from textdiffusion.overrides import changed
from textdiffusion.training.loop import train


def main() -> None:
    """One run, one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cpu-seconds", type=float, default=180)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = recipes.get(arguments.recipe)()
    text = replace(
        config.text,
        data=str(arguments.data),
        layout="lines",
        length=42,
        model_padding=True,
        valid_fraction=0.0,
        test_fraction=0.0,
    )
    training = replace(config.training, steps=10**6, max_cpu_seconds=arguments.cpu_seconds, samples=0, log_every=200)
    config = changed(replace(config, text=text, training=training), arguments.set)
    finished = train(config, arguments.out, console=Console(stderr=True))

    language = ProduceSentences.from_lines(arguments.data.read_text().splitlines())
    row = {"recipe": arguments.recipe, "set": arguments.set, "cpu_seconds": arguments.cpu_seconds}
    row |= {"steps": finished.step}
    for weights in ("ema", "raw"):
        model = TextDiffusion.from_pretrained(str(arguments.out), weights=weights)
        start = time.process_time()
        samples = [sample.rstrip("\n") for sample in model.generate(num=arguments.num, seed=0)]
        row |= {
            f"{weights}_legal": language.legal(samples),
            f"{weights}_novel_and_legal": language.novel_and_legal(samples),
            f"{weights}_distinct": len(set(samples)) / len(samples),
            "sampling_cpu_seconds": round(time.process_time() - start, 1),
        }
    print(json.dumps(row | {"examples": samples[:4]}))


if __name__ == "__main__":
    main()
