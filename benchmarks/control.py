"""Success and fluency of guidance against its weight, on sentences "The COLOUR PRODUCE is STATE.".

    python benchmarks/control.py RUN --data mtd_simple_train.txt --classifier FOLDER [--through state prediction energy]
        [--weights 0 1 2 4] [--num 20] [--steps 32] [--exact K] [--train-steps 600]

RUN is a run of such sentences, FOLDER a classifier of their colours for it, trained and kept there if there is none.
For each weight and each of the ten colours `num` sentences are steered towards it. Success: they have the colour.
Fluency: bits per character under a Kneser-Ney 4-gram of the run's tokens, and the share that is legal.
Steered towards the next colour instead, the colour must become rarer (`wrong`). Beside it the best of n unguided
sentences by the same classifier: n = 2 makes as many calls. Prints a JSON line for each row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from steering import THROUGH, best, classifier, guides

from textdiffusion import TextDiffusion
from textdiffusion.evaluation.metrics.legality import ProduceSentences
from textdiffusion.evaluation.ngram import NGram


def colour(text: str) -> str:
    """The second word."""
    return [*text.split(" "), "", ""][1]


class Judged:
    """What is said of sentences: their colour, whether they are legal, and their bits."""

    def __init__(self, run: TextDiffusion, lines: list[str]) -> None:
        self.run, self.language = run, ProduceSentences.from_lines(lines)
        self.lines = lines
        self.ngram = NGram.fit(self._ids(lines), run.tokenizer.vocab_size, 4)

    def _ids(self, texts: list[str]) -> np.ndarray:
        end = self.run.tokenizer.end_id
        assert end is not None
        return np.concatenate([np.append(self.run.tokenizer.encode(text), end) for text in texts])

    def row(self, texts: dict[str, list[str]]) -> dict[str, Any]:
        """Figures of the sentences that were steered towards each colour."""
        hits = np.array([colour(text) == label for label, group in texts.items() for text in group])
        flat = [text.rstrip("\n") for group in texts.values() for text in group]
        nonempty = [text for text in flat if text]
        bits = float(self.ngram.bits(self._ids(nonempty)).sum()) / sum(len(text) for text in nonempty)
        return {
            "success": round(float(hits.mean()), 3),
            "error": round(float(hits.std() / len(hits) ** 0.5), 3),
            "bits_per_character": round(bits, 3),
            "legal": round(self.language.legal(flat), 3),
            "distinct": round(len(set(flat)) / len(flat), 3),
        }


def main() -> None:
    """One line for each method and weight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--through", nargs="+", default=["state"], choices=THROUGH)
    parser.add_argument("--weights", nargs="+", type=float, default=[0.0, 1.0, 2.0, 4.0])
    parser.add_argument("--num", type=int, default=20)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--exact", type=int, default=0)
    parser.add_argument("--train-steps", type=int, default=600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = TextDiffusion.from_pretrained(given.run, device="cpu")
    lines = given.data.read_text(encoding="utf-8").splitlines()
    judged = Judged(run, lines)
    examples = [(line, colour(line)) for line in lines]
    judge = classifier(run, given.classifier, examples, given.train_steps)
    labels = sorted(judged.language.colours)

    def steered(guide: Callable[[str], list[Any]], shift: int = 0) -> dict[str, list[str]]:
        """Sentences steered towards each colour, or towards the one `shift` places on."""
        towards = [labels[(number + shift) % len(labels)] for number in range(len(labels))]
        made = [
            run.generate(given.num, steps=given.steps, seed=n, guides=guide(label)) for n, label in enumerate(towards)
        ]
        return dict(zip(labels, made, strict=True))

    def report(method: str, weight: float, start: float, texts: dict[str, list[str]], **more: Any) -> None:
        spent = round(time.process_time() - start, 1)
        print(json.dumps({"method": method, "weight": weight, **judged.row(texts), **more, "cpu": spent}), flush=True)

    for through in given.through:
        for weight in given.weights:

            def guide(label: str, through: str = through, weight: float = weight) -> list[Any]:
                return guides(given.classifier, label, weight, through, given.exact)

            start = time.process_time()
            texts = steered(guide)
            wrong = steered(guide, shift=1) if weight else texts
            shown = sum(colour(text) == label for label, group in wrong.items() for text in group)
            report(through, weight, start, texts, wrong=round(shown / (given.num * len(labels)), 3))
    for n in (2, 4, 8):
        start = time.process_time()
        chosen = {
            label: best(run, judge, label, run.generate(given.num * n, steps=given.steps, seed=number), n)
            for number, label in enumerate(labels)
        }
        report(f"best of {n}", 0.0, start, chosen)


if __name__ == "__main__":
    main()
