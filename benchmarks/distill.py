"""Distils a run into fewer steps, and measures students and teacher at several numbers of network calls.

    python benchmarks/distill.py RUN --data TRAIN --test TEST --out FOLDER --cpu-seconds 600
        [--steps 8] [--divergences forward reverse] [--calls 4 8 16 32] [--teacher-calls 8 16 32 64] [--num 256]
        [--windows 128] [--threads 1] [--measure-only] [--samplers unmasking:order=entropy,edit=0.9 ...]

Students are in FOLDER/forward and FOLDER/reverse; distilling continues where it stopped. `--samplers` are measured on
RUN as well, each with its own setting of steps. A line of JSON in FOLDER/rows.jsonl for each case, then a Markdown
table. What is in the file is not measured again.

`order bits` are bits per character of the exact likelihood of the steps used: the run's order, `length / calls`
positions at a time. `forward` is bits per character of the samples under a character 6-gram of the training text,
`reverse` those of test texts under a 6-gram of the samples, and `entropy` that of the tokens of the samples, in bits.
Sharper samples have fewer forward bits at a lower entropy and more reverse bits: all three must be near the teacher's.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Rows
from steps import ORDER

from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.heldout import HeldOut, decode_texts, held_out
from textdiffusion.evaluation.ngram_scorer import NgramScorer, characters
from textdiffusion.evaluation.ngram_statistics import unigram_entropy
from textdiffusion.evaluation.sample_report import markdown_table
from textdiffusion.inference.api import TextDiffusion
from textdiffusion.scoring.likelihood import bits_per_character
from textdiffusion.training.distillation import distill

TRAIN_WINDOWS, BATCH = 20_000, 64


@dataclass(frozen=True)
class Measured:
    """A run, the text it is measured by, and how much of it."""

    model: TextDiffusion
    test: HeldOut
    judge: NgramScorer
    num: int

    @cached_property
    def real(self) -> list[str]:
        """As many test texts as there are samples."""
        tokens = self.test.windows(np.arange(min(self.num, len(self.test)))).tokens.numpy()
        return texts_of(self.model, tokens)

    def quality(self, tokens: np.ndarray) -> dict[str, float]:
        """What samples are worth."""
        texts, shown = texts_of(self.model, tokens), tokens[tokens != self.model.tokenizer.pad_id]
        reverse = NgramScorer.fit(texts, characters, ORDER).bits(self.real)
        return {"forward": self.judge.bits(texts), "reverse": reverse, "entropy": float(unigram_entropy(shown))}

    def row(self, calls: int, sampler: str, windows: int) -> dict[str, Any]:
        """Samples of a sampler, or in so many steps of the run's own, of which the likelihood is measured too."""
        start, made, written = time.process_time(), 0.0, []
        batch = self.model.empty_batch(self.num)
        for part in torch.arange(self.num).split(BATCH):
            *_, last = self.model.stream(steps=calls or None, sampler=sampler or None, batch=batch.select(part))
            written.append(last.tokens.numpy())
            made += last.nfe * len(part) / self.num
        tokens = np.concatenate(written)
        row = {"made": round(made, 1), **self.quality(tokens), "examples": texts_of(self.model, tokens[:3])}
        row["cpu_seconds"] = round(time.process_time() - start, 1)
        if sampler:
            return row
        own: Any = self.model.config.sampler
        likelihood = self.model.order_likelihood(own.order, -(-self.model.config.text.length // calls))
        some = replace(self.test, rows=self.test.rows[:windows])
        estimate = bits_per_character(self.model.model, some, likelihood, batch_size=BATCH)
        return row | {"order_bits": estimate.bits}


def texts_of(model: TextDiffusion, tokens: np.ndarray) -> list[str]:
    """What rows of tokens say, without the source of attributes that stands before the text."""
    text = model.config.text
    return [decode_texts(row, model.tokenizer)[1 if text.source else 0] for row in tokens]


def main() -> None:
    """Distils, measures what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cpu-seconds", type=float, default=600.0)
    parser.add_argument("--divergences", nargs="+", default=["forward", "reverse"])
    parser.add_argument("--calls", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--teacher-calls", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure-only", action="store_true")
    parser.add_argument("--samplers", nargs="+", default=[])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for divergence in () if given.measure_only else given.divergences:
        settings = ["training.num_samples=0", "training.eval_every=1000000", "training.checkpoint_every=100"]
        limits = {"steps_per_round": 1_000_000, "max_cpu_seconds": given.cpu_seconds}
        out = given.out / divergence
        distill(given.run, out, steps=given.steps, data=given.data, divergence=divergence, settings=settings, **limits)
    cases = [(given.run, calls, "") for calls in given.teacher_calls]
    cases += [(str(given.out / each), calls, "") for each in given.divergences for calls in given.calls]
    cases += [(given.run, 0, sampler) for sampler in given.samplers]
    teacher = TextDiffusion.from_pretrained(given.run, device="cpu")
    test = held_out(teacher, default_cache(), given.test, max(given.num, given.windows))
    train = held_out(teacher, default_cache(), given.data, TRAIN_WINDOWS)
    train_texts = texts_of(teacher, train.windows(np.arange(len(train))).tokens.numpy())
    judge = NgramScorer.fit(train_texts, characters, ORDER)
    done, names = Rows(given.out / "rows.jsonl"), ("order_bits", "forward", "reverse", "entropy")
    lines = [["run", "sampler", "calls", "order bits", *names[1:]]]
    for run, calls, sampler in cases:
        measured = Measured(TextDiffusion.from_pretrained(run, device="cpu"), test, judge, given.num)
        key = {"run": run, "calls": calls, "sampler": sampler, "num": given.num, "windows": given.windows}
        row = done.row(key, partial(measured.row, calls, sampler, given.windows))
        figures = [f"{row[name]:.3f}" if name in row else "" for name in names]
        lines.append([Path(run).name, sampler and f"`{sampler}`", f"{row['made']:g}", *figures])
    real = test.windows(np.arange(len(test))).tokens.numpy()
    quality = Measured(teacher, test, judge, given.num).quality(real[::-1][: given.num])
    lines.append(["real text", "", "", "", *(f"{quality[name]:.3f}" for name in names[1:])])
    print("\n".join(["", *markdown_table(lines)]))


if __name__ == "__main__":
    main()
