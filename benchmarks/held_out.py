"""Bits per character on held-out text after a budget of CPU-seconds.

    python benchmarks/held_out.py RECIPE --data FILE --cpu-seconds 600 --out FOLDER [--set backbone.depth=2 ...]

Trains on the first 90 % of the text (or what --test-fraction leaves) and measures the averaged and raw weights on the
rest, in non-overlapping windows of the training length, until the Monte-Carlo error is below 0.01 bits. The budget is
the CPU time of all threads in training steps; compilation is stated apart. Prints one JSON line. A run that was
stopped continues where its last checkpoint left off.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import arguments, trained

from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.heldout import held_out, training_corpus
from textdiffusion.evaluation.ngram import kneser_ney
from textdiffusion.inference.api import TextDiffusion
from textdiffusion.inference.run import Weights
from textdiffusion.scoring.likelihood import bits_per_character


def measured(
    recipe: str,
    data: str,
    *,
    out: Path,
    cpu_seconds: float,
    valid_fraction: float = 0.0,
    test_fraction: float = 0.1,
    settings: Sequence[str] = (),
    threads: int = 1,
    seed: int = 0,
    weights: Sequence[Weights] = ("ema", "raw"),
    target_error: float = 0.01,
) -> dict[str, Any]:
    """Trains and measures; the row of the table."""
    text_settings = {"data": data, "valid_fraction": valid_fraction, "test_fraction": test_fraction}
    row = trained(
        recipe, text_settings, cpu_seconds=cpu_seconds, out=out, settings=settings, threads=threads, seed=seed
    )
    model, *others = (TextDiffusion.from_pretrained(str(out), weights=kind) for kind in weights)
    text = held_out(model, default_cache())
    for run in (model, *others):
        estimate = bits_per_character(run.model, text, run.likelihood, batch_size=256, target_error=target_error)
        row |= {run.weights: round(estimate.bits, 4), f"{run.weights}_error": round(estimate.monte_carlo_error, 4)}
    row["parameters"] = sum(p.numel() for p in model.model.parameters())
    ngram = kneser_ney(training_corpus(model, default_cache()).train.shard, text, model.tokenizer.vocab_size)
    return row | {"windows": len(text), "characters": text.characters(), "kneser_ney": round(ngram.bits, 4)}


def main() -> None:
    """One run, one line."""
    parser = arguments(__doc__, 600)
    parser.add_argument("--test-fraction", type=float, default=0.1)
    given = parser.parse_args()
    row = measured(
        given.recipe,
        given.data,
        out=given.out,
        cpu_seconds=given.cpu_seconds,
        test_fraction=given.test_fraction,
        settings=given.set,
        threads=given.threads,
        seed=given.seed,
    )
    print(json.dumps(row))


if __name__ == "__main__":
    main()
