"""Quality of samples against network calls, for each run and sampler, at the entropy of real text.

    python benchmarks/steps.py RUN ... --samplers one_step heun dpm_solver:eta=1 --calls 4 8 16 32 64 --out steps.jsonl
        [--temperatures 0.8 0.9 1.0] [--num 256] [--batch 64] [--threads 1]

A line of JSON for each run, sampler, budget and temperature, then a Markdown table for each run. What stands in `--out`
already is not sampled again. A sampler a run cannot use is left out.

`forward` is bits per character of the samples under a character 6-gram of the training text; `legal` is the fraction of
lines that a language with a known checker has. `entropy` is that of all tokens of the samples, in bits. Sharper samples
always look better, so a cell of the table is the quality at the entropy of real text: interpolated between the
temperatures on either side of it, or that of the nearest one where it is within 0.05 bits, else in brackets. The best
of a budget, brackets apart, is in bold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Rows

from textdiffusion.core.errors import UserError
from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.heldout import training_corpus
from textdiffusion.evaluation.metrics.legality import find_checker
from textdiffusion.evaluation.ngram_scorer import NgramScorer, characters
from textdiffusion.evaluation.ngram_statistics import unigram_entropy
from textdiffusion.evaluation.sample_report import markdown_table
from textdiffusion.inference.api import TextDiffusion

ORDER, TOLERANCE, COUNTED = 6, 0.05, 20_000


@dataclass(frozen=True)
class Measured:
    """A run with the text that its samples are measured by."""

    folder: str
    num: int

    @cached_property
    def model(self) -> TextDiffusion:
        return TextDiffusion.from_pretrained(self.folder, device="cpu")

    @cached_property
    def corpus(self) -> Any:
        return training_corpus(self.model, default_cache())

    def ids(self, dataset: Any, most: int) -> np.ndarray:
        """Windows of a part of the corpus, evenly spread."""
        numbers = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
        return dataset.windows(numbers).tokens.numpy()

    def texts(self, ids: np.ndarray) -> list[str]:
        """What rows of tokens say."""
        return [self.model.tokenizer.decode(row) for row in ids]

    @cached_property
    def judge(self) -> NgramScorer:
        train = self.texts(self.ids(self.corpus.train, COUNTED))
        return NgramScorer.fit(
            ["".join(train)] if self.model.config.text.layout == "stream" else train, characters, ORDER
        )

    @cached_property
    def check(self) -> Any:
        lines = [text.rstrip("\n") for text in self.texts(self.ids(self.corpus.train, COUNTED))]
        return find_checker(lines) if self.model.config.text.layout == "lines" else None

    def quality(self, ids: np.ndarray) -> dict[str, float]:
        """What the table is made of."""
        texts = self.texts(ids)
        found = {"forward": self.judge.bits(texts), "entropy": float(unigram_entropy(ids.ravel()))}
        return found | ({"legal": float(np.mean([self.check(t.rstrip("\n")) for t in texts]))} if self.check else {})

    @cached_property
    def real(self) -> dict[str, float]:
        """The same of real text, held out where there is some."""
        return self.quality(self.ids(self.corpus.test or self.corpus.valid or self.corpus.train, self.num))

    def steps(self, sampler: str, calls: int) -> int:
        """The most steps that take no more network calls, at least one a step: cached ones are not counted on."""
        three, five = (list(self.model.stream(num=1, steps=n, sampler=sampler))[-1].nfe for n in (3, 5))
        return int((calls - 1) // max(1.0, (five - three) / 2)) + 1

    def row(self, sampler: str, calls: int, temperature: float, batch: int) -> dict[str, Any]:
        """Samples, and what they are worth."""
        steps, written, made, start = self.steps(sampler, calls), [], [], time.process_time()
        rows = self.model.empty_batch(self.num)
        for part in torch.arange(self.num).split(batch):
            chosen = rows.select(part)
            *_, last = self.model.stream(steps=steps, sampler=sampler, temperature=temperature, batch=chosen)
            written.append(last.tokens.numpy())
            made.append(last.nfe * len(part))
        spent = {"steps": steps, "made": sum(made) / self.num, "cpu_seconds": round(time.process_time() - start, 1)}
        ids = np.concatenate(written)
        return {"recipe": self.model.config.recipe, **spent, **self.quality(ids), "examples": self.texts(ids[:2])}


def cell(rows: Sequence[dict[str, Any]], real: dict[str, float], name: str) -> tuple[float, bool]:
    """The quality at the entropy of real text, and whether it was reached."""
    rows = sorted(rows, key=lambda row: row["entropy"])
    at, values = [row["entropy"] for row in rows], [row[name] for row in rows]
    reached = at[0] - TOLERANCE <= real["entropy"] <= at[-1] + TOLERANCE
    return float(np.interp(real["entropy"], at, values)), reached


def table(run: Measured, rows: Sequence[dict[str, Any]], budgets: Sequence[int]) -> str:
    """Markdown: samplers down, budgets across."""
    name = "legal" if run.check else "forward"
    real = ", ".join(f"{key} {value:.3f}" for key, value in run.real.items())
    lines = [["sampler", *(f"{n} calls" for n in budgets)]]
    cells = {
        (s, n): cell(found, run.real, name)
        for s in dict.fromkeys(row["sampler"] for row in rows)
        for n in budgets
        if (found := [row for row in rows if row["sampler"] == s and row["calls"] == n])
    }
    best = max if name == "legal" else min
    bests = {n: best((v for (_, m), (v, ok) in cells.items() if m == n and ok), default=None) for n in budgets}
    for sampler in dict.fromkeys(s for s, _ in cells):
        shown = []
        for n in budgets:
            value, reached = cells.get((sampler, n), (float("nan"), False))
            text = f"{value:.3f}"
            shown.append(f"**{text}**" if reached and value == bests[n] else text if reached else f"({text})")
        lines.append([f"`{sampler}`", *shown])
    return "\n".join([f"### {run.folder}: {name}", "", f"Real text: {real}.", "", *markdown_table(lines), ""])


def main() -> None:
    """Samples what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--samplers", nargs="+", required=True)
    parser.add_argument("--calls", nargs="+", type=int, default=[4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--temperatures", nargs="+", type=float, default=[1.0])
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    done = Rows(given.out)
    tables = []
    for folder in given.runs:
        run = Measured(folder, given.num)
        for calls in given.calls:
            for sampler in given.samplers:
                for temperature in given.temperatures:
                    key = {"run": folder, "sampler": sampler, "calls": calls, "temperature": temperature}
                    key["num"] = given.num
                    try:
                        done.row(key, partial(run.row, sampler, calls, temperature, given.batch))
                    except UserError as error:
                        print(f"{folder} without {sampler}: {error}", flush=True)
        chosen = [
            row
            for row in done.having(run=folder, num=given.num)
            if row["sampler"] in given.samplers and row["temperature"] in given.temperatures
        ]
        tables.append(table(run, chosen, given.calls))
    print("\n" + "\n".join(tables))


if __name__ == "__main__":
    main()
