"""CPU-seconds of every sample metric, and what the table says about cheats.

    python benchmarks/metrics.py --data tinyshakespeare.txt

Times the metrics on 1,000 texts of 256 characters against the first half of the text. Then prints the table for naive
samples that single numbers praise: a frequent phrase over and over, and a character n-gram at temperature 0.3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from textdiffusion.evaluation.metrics.base import ReferenceTexts, TextSet, all_metrics
from textdiffusion.evaluation.metrics.copying import CopyFinder
from textdiffusion.evaluation.ngram import NGram
from textdiffusion.evaluation.ngram_scorer import NgramScorer, characters
from textdiffusion.evaluation.ngram_statistics import Grams, Undefined
from textdiffusion.evaluation.sample_report import sample_report

NUM, LENGTH = 1000, 256


def cold(judge: NgramScorer, num: int, length: int, temperature: float, seed: int = 0) -> list[str]:
    """Samples of an n-gram whose conditional probabilities are raised to the power 1 / temperature."""
    ngram, rng = judge.ngram, np.random.default_rng(seed)
    every = np.arange(ngram.vocab_size)
    contexts = [np.zeros(num, dtype=np.int64)] + [np.full(num, -1)] * (ngram.order - 1)
    ids = np.empty((num, length), dtype=np.int64)
    for position in range(length):
        p, ranks = np.full((num, ngram.vocab_size), 1 / ngram.vocab_size), []
        for level, context in zip(ngram.levels, contexts, strict=True):
            ranks.append(level.find((context[:, None] * ngram.vocab_size + every).ravel()).reshape(p.shape))
            p = level.discounted[ranks[-1]] + level.backoff[context][:, None] * p
        sums = np.cumsum((p / p.max(1, keepdims=True)) ** (1 / temperature), axis=1)
        chosen = (sums < rng.random((num, 1)) * sums[:, -1:]).sum(1)
        ids[:, position] = chosen
        contexts = contexts[:1] + [rank[np.arange(num), chosen] for rank in ranks[:-1]]
    names = {i: piece for piece, i in judge.ids.items()}
    return ["".join(names.get(i, "") for i in row) for row in ids.tolist()]


def timed(name: str, work: Callable[[], object]) -> None:
    """Prints the CPU-seconds of the process."""
    start = time.process_time()
    try:
        result = work()
    except Undefined as error:
        result = error
    shown = f"{result:.4g}" if isinstance(result, float | int) else ""
    print(f"{time.process_time() - start:7.3f}  {name}  {shown}", flush=True)


def main() -> None:
    """Times, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    text = parser.parse_args().data.read_text(encoding="utf-8")
    train, heldout = text[: len(text) // 2], text[len(text) // 2 :]
    windows = [heldout[i : i + LENGTH] for i in range(0, len(heldout) - LENGTH, LENGTH)]
    samples = TextSet((windows * (1 + NUM // len(windows)))[:NUM])

    print("CPU-s    what")
    million = np.unique(np.frombuffer((text * 2)[:1_000_000].encode("utf-32-le"), np.uint32), return_inverse=True)[1]
    fitted = []
    timed("NGram.fit, order 7, 1 M characters", lambda: fitted.append(NGram.fit(million, int(million.max()) + 1, 7)))
    timed("NGram.bits, 100 k characters", lambda: fitted[0].bits_per_token(million[:100_000]))
    finder = CopyFinder(Grams.characters([(train * (1 + 5_000_000 // len(train)))[:5_000_000]]))
    timed("copied spans, 5 M characters of training text", lambda: finder.copied_fraction(samples.chars))
    timed("longest copy, 5 M characters of training text", lambda: finder.longest(samples.chars))
    cut = [train[i : i + LENGTH] for i in range(0, len(train) - LENGTH, LENGTH)]
    real = ReferenceTexts([train], cut[:1000], windows, lambda sample: sample.split("\n")[1:-1])
    metrics = [metric for metric in all_metrics() if metric.applies(real)]
    few = TextSet(windows[:8])
    timed("n-grams, lexicon and encoder of the real text", lambda: [metric.value(few, real) for metric in metrics])
    for metric in metrics:
        timed(metric.name, lambda metric=metric: metric.value(samples, real))

    judge = NgramScorer.fit([train], characters, 6)
    phrase = "I will not be the king of the world, my lord. "
    rows = {
        "phrase": [(phrase * 12)[i % len(phrase) :][:LENGTH] for i in range(400)],
        "n-gram at T=0.3": cold(judge, 400, LENGTH, 0.3),
        "n-gram at T=0.7": cold(judge, 400, LENGTH, 0.7),
    }
    start = time.process_time()
    report = sample_report(rows, train, heldout)
    print(f"\nA report of 400 samples in {len(rows)} rows: {time.process_time() - start:.1f} CPU-seconds\n\n{report}")


if __name__ == "__main__":
    main()
