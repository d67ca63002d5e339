"""How well a run fills gaps: sentences held out, with random spans masked.

    python benchmarks/infilling.py RUN --data mtd_simple_test.txt --train mtd_simple_train.txt [--field ref]
        [--num 10000] [--steps 16] [--sampler NAME] [--temperature 1] [--guide repaint:n_resample=5] [--spans 2]
        [--share 0.5]

The files have a sentence on each line, or are CSV and have them in a `field`. From each sentence `share` of its tokens
are masked, in at most `spans` spans at random positions. Printed as one JSON line: the fraction of texts in which the
given text is preserved exactly and, where the training text is of a known language, that are legal; bits per character
of the filled sentences, of the sentences themselves and of gaps filled with random tokens, all under a Kneser-Ney
n-gram of the training text. An autoregressive run fills from left to right, blind to what follows. Runs whose
tokenizers cut alike are given the same templates.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from textdiffusion import TextDiffusion
from textdiffusion.data.tokenizers.base import Tokenizer
from textdiffusion.evaluation.metrics.legality import find_checker
from textdiffusion.evaluation.ngram import NGram


def masked(length: int, spans: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which of `length` tokens are in gaps: a fraction `share` of them, at least one, in at most `spans` spans."""
    count = max(1, round(share * length))
    spans = int(rng.integers(1, min(spans, count) + 1))
    sizes = np.diff([0, *sorted(rng.choice(np.arange(1, count), spans - 1, replace=False)), count])
    between = np.diff([-1, *sorted(rng.choice(length - count + 1, spans, replace=False))])  # given before each
    gaps = np.zeros(length, dtype=bool)
    position = -1
    for size, given in zip(sizes, between, strict=True):
        position += given
        gaps[position + 1 : position + 1 + size] = True
        position += size
    return gaps


def template(ids: np.ndarray, gaps: np.ndarray, tokenizer: Tokenizer) -> tuple[str, re.Pattern[str]]:
    """The template, and a pattern of what is given."""
    cuts = np.flatnonzero(np.diff(gaps)) + 1
    written, pattern = "", ""
    for part, gap in zip(np.split(ids, cuts), np.split(gaps, cuts), strict=True):
        text = tokenizer.decode(part)
        written += f"[MASK:{len(part)}]" if gap[0] else text.replace("[MASK", r"\[MASK")
        pattern += ".+" if gap[0] else re.escape(text)
    return written, re.compile(pattern, re.DOTALL)


def sentences(path: Path, field: str) -> list[str]:
    """The lines of a file, or what its records have in the field."""
    with path.open(encoding="utf-8", newline="") as file:
        return [record[field] for record in csv.DictReader(file)] if field else file.read().splitlines()


def main() -> None:
    """One run, one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--field", default="")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--guide", action="append", default=[])
    parser.add_argument("--spans", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.5)
    asked = parser.parse_args()
    run, rng = TextDiffusion.from_pretrained(asked.run), np.random.default_rng(0)
    assert run.tokenizer.end_id is not None
    end, vocab = run.tokenizer.end_id, run.tokenizer.vocab_size
    room = run.config.text.length - 1
    lines, known = (sentences(path, asked.field) for path in (asked.data, asked.train))
    encoded = [
        ids for ids in map(run.tokenizer.encode, lines) if 2 <= len(ids) <= room and run.tokenizer.unk_id not in ids
    ]
    chosen = [encoded[i % len(encoded)] for i in range(asked.num)]  # over and over, with other gaps
    gaps = [masked(len(ids), asked.spans, asked.share, rng) for ids in chosen]
    made = [template(ids, gap, run.tokenizer) for ids, gap in zip(chosen, gaps, strict=True)]
    started = time.process_time()
    batch, texts, filled = run.infill_batch([text for text, _ in made]), [], []
    batch = replace(batch, row_ids=torch.arange(len(made)))  # else each template would be filled by the same draws
    for part in run.chunks(batch):
        how = {"steps": asked.steps, "sampler": asked.sampler, "temperature": asked.temperature, "guides": asked.guide}
        *_, last = run.stream(batch=part, **how)
        texts += run.decode(last, part)
        filled += list(last.tokens.cpu().numpy())
    seconds = time.process_time() - started
    counted = np.concatenate([np.append(run.tokenizer.encode(line), end) for line in known])
    ngram = NGram.fit(counted, vocab, 7 if vocab <= 512 else 4)

    def bits(rows: list[np.ndarray]) -> float:
        letters = sum(len(run.tokenizer.decode(ids)) for ids in rows)
        return round(float(ngram.bits(np.concatenate([np.append(ids, end) for ids in rows])).sum()) / letters, 3)

    chance = [
        np.where(gap, rng.permutation(counted)[: len(ids)], ids) for ids, gap in zip(chosen[:200], gaps, strict=False)
    ]
    legal = find_checker(known)
    row = {
        "run": asked.run,
        "recipe": run.config.recipe,
        "sampler": asked.sampler or type(run.config.sampler).__name__,
        "guides": asked.guide,
        "temperature": asked.temperature,
        "steps": asked.steps or run.config.sampler.steps,
        "num": len(texts),
        "kept": sum(bool(p.fullmatch(text)) for text, (_, p) in zip(texts, made, strict=True)) / len(texts),
        "legal": legal and round(sum(map(legal, texts)) / len(texts), 4),
        "bits": bits([ids[: len(own)] for ids, own in zip(filled, chosen, strict=True)]),
        "bits_of_the_sentences": bits(chosen),
        "bits_of_chance": bits(chance),
        "seconds": round(seconds, 1),
        "examples": [f"{text} -> {own}" for (text, _), own in zip(made[:3], texts, strict=False)],
    }
    print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
