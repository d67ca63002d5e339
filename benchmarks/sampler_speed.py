"""What samplers of masked models cost, in CPU-seconds for the same batch, and what their texts are like.

    python benchmarks/sampler_speed.py RUN --data tinyshakespeare.txt [--rows 16] [--num 128] [--sampler NAME@STEPS ...]

First ancestral sampling with and without cached logits, which give the same texts, at as many steps as tokens and at
four times as many: one batch of `rows`. Then each sampler on `num` texts: CPU-seconds, calls a row, bits a character
under a 5-gram of the data, and the entropy of characters in bits. Ratios are to the first sampler. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textdiffusion.evaluation.ngram_scorer import NgramScorer, characters
from textdiffusion.evaluation.ngram_statistics import unigram_entropy
from textdiffusion.inference.api import TextDiffusion

SAMPLERS = (
    "unmasking:order=random@1",
    "ancestral@1",
    "unmasking:order=entropy@1",
    "unmasking:order=random@0.25",
    "unmasking:order=entropy@0.25",
    "unmasking:order=entropy,entropy_bound=0.1@1",
    "unmasking:order=entropy,entropy_bound=0.5@1",
    "unmasking:order=random,entropy_bound=0.1@1",
    "unmasking:order=random,entropy_bound=0.5@1",
    "unmasking:order=random,threshold=0.9@1",
)
"""Samplers with their steps as a fraction of the tokens."""


def timed(model: TextDiffusion, num: int, rows: int, steps: int, sampler: str) -> tuple[list[str], float, float]:
    """Texts written `rows` at a time, CPU-seconds, and calls a row."""
    texts, calls, start = [], 0.0, time.process_time()
    for part in torch.arange(num).split(rows):
        batch = model.empty_batch(num).select(part)
        *_, last = model.stream(steps=steps, sampler=sampler, batch=batch)
        texts += model.decode(last, batch)
        calls += last.nfe * len(part) / num
    return texts, time.process_time() - start, calls


def compare_cached_logits(model: TextDiffusion, rows: int, times: int) -> dict[str, Any]:
    """Ancestral sampling with and without cached logits, in turns."""
    steps = times * model.config.text.length
    seconds, texts, calls = [0.0, 0.0], [[""], [""]], [0.0, 0.0]
    for turn in range(4):
        model.model.denoiser.time_independent = turn % 2 == 0
        texts[turn % 2], spent, calls[turn % 2] = timed(model, rows, rows, steps, "ancestral")
        seconds[turn % 2] += spent
    model.model.denoiser.time_independent = True
    if texts[0] != texts[1]:
        raise SystemExit("Cached logits changed the texts.")
    return {"steps": steps, "calls": [round(c, 1) for c in calls], "ratio": round(seconds[1] / seconds[0], 2)}


def main() -> None:
    """Two comparisons of cached logits, then the table of samplers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--num", type=int, default=128)
    parser.add_argument("--sampler", nargs="*", default=SAMPLERS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = TextDiffusion.from_pretrained(given.run, device="cpu")
    for times in (1, 4):
        print(json.dumps({"kept logits": compare_cached_logits(model, given.rows, times)}), flush=True)
    judge = NgramScorer.fit([given.data.read_text()], characters, 5)
    first = 0.0
    for sampler in given.sampler:
        name, _, fraction = sampler.partition("@")
        steps = round(float(fraction or 1) * model.config.text.length)
        texts, seconds, calls = timed(model, given.num, given.rows, steps, name)
        first = first or seconds
        row = {"sampler": name, "steps": steps, "calls": round(calls, 1), "cpu_seconds": round(seconds, 2)}
        ids = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
        row |= {"faster": round(first / seconds, 2), "bits": round(judge.bits(texts), 3)}
        print(json.dumps(row | {"entropy": round(unigram_entropy(ids), 3), "example": texts[0]}), flush=True)


if __name__ == "__main__":
    main()
