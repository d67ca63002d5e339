"""How many samples of a small closed language are legal, and how many of them new, after a budget of CPU-seconds.

    python benchmarks/simple_sentences.py RECIPE --data mtd_simple_train.txt --cpu-seconds 180 --out FOLDER

The language is "The COLOUR PRODUCE is STATE."; a model that knew it perfectly would be novel in about 62 to 64 % of its
sentences. 1,000 samples at temperature 1 from the averaged and the raw weights, by the run's own sampler or another
(`--sampler unmasking:order=entropy,refine_rounds=12 --sampling-steps 240`). Prints one JSON line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import arguments, trained

from textdiffusion.evaluation.metrics.legality import ProduceSentences
from textdiffusion.inference.api import TextDiffusion

LONGEST = 42  # characters of a line, its end included


def measured(
    recipe: str,
    data: Path,
    *,
    out: Path,
    cpu_seconds: float,
    num: int = 1000,
    sampler: str | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
    threads: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains, samples and counts; the row of the table."""
    text = {
        "data": str(data),
        "layout": "lines",
        "length": LONGEST,
        "model_padding": True,
        "valid_fraction": 0.0,
        "test_fraction": 0.0,
    }
    row = trained(recipe, text, cpu_seconds=cpu_seconds, out=out, settings=settings, threads=threads, seed=seed)
    language = ProduceSentences.from_lines(data.read_text().splitlines())
    for weights in ("ema", "raw"):
        model = TextDiffusion.from_pretrained(str(out), weights=weights)
        start = time.process_time()
        samples = [sample.rstrip("\n") for sample in model.generate(num, steps=steps, sampler=sampler)]
        row |= {
            f"{weights}_legal": language.legal(samples),
            f"{weights}_novel_and_legal": language.novel_and_legal(samples),
            f"{weights}_distinct": len(set(samples)) / len(samples),
            "sampling_cpu_seconds": round(time.process_time() - start, 1),
        }
    return row | {"sampler": sampler, "sampling_steps": steps, "examples": samples[:4]}


def main() -> None:
    """One run, one line."""
    parser = arguments(__doc__, 180)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--sampler")
    parser.add_argument("--sampling-steps", type=int)
    given = parser.parse_args()
    row = measured(
        given.recipe,
        Path(given.data),
        out=given.out,
        cpu_seconds=given.cpu_seconds,
        num=given.num,
        sampler=given.sampler,
        steps=given.sampling_steps,
        settings=given.set,
        threads=given.threads,
        seed=given.seed,
    )
    print(json.dumps(row))


if __name__ == "__main__":
    main()
