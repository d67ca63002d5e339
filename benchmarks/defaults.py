"""What suits a text: tokenizers and layouts compared on several kinds of text after one, five and thirty minutes.

    python benchmarks/defaults.py --data FOLDER --out FOLDER [--minutes 1 5] [--kinds plays code] [--choices bpe:1024]

FOLDER holds one file per kind: plays.txt, prose.txt, sentences.txt, code.txt, script.txt. A choice is a tokenizer, with
the size of its vocabulary after a colon, and `lines` after a slash for one example per line: `words/lines`. Each row
trains `mdlm` (4 blocks of width 128) for so many CPU-minutes of one core on the first 90 % and measures, on the rest:
bits per character; words of 64 texts that occur in the training text (%); forward bits (the texts under a character
4-gram of real text) and reverse bits (real text under a 4-gram of the texts). Rows are appended to rows.jsonl; those
that are there are not measured again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from held_out import measured

from textdiffusion.evaluation.metrics.valid_words import lexicon, valid_fraction
from textdiffusion.evaluation.ngram_scorer import NgramScorer, characters
from textdiffusion.inference.api import TextDiffusion

KINDS = ("plays", "prose", "sentences", "code", "script")
CHOICES = ("characters", "words", "bpe:512", "bpe:1024", "bpe:2048")
EXAMPLES = ("sentences",)  # kinds with one text per line


def settings(kind: str, choice: str) -> list[str]:
    """The overrides of a choice for a kind of text."""
    tokenizer, _, size = choice.partition(":")
    found = [f"text.tokenizer={tokenizer}", *([f"text.vocab_size={size}"] if size else [])]
    if kind in EXAMPLES:
        length = {"characters": 160, "words": 40}.get(tokenizer, 56)
        found += ["text.layout=lines", "text.model_padding=true", f"text.length={length}"]
    return found


def measure(kind: str, choice: str, minutes: float, data: Path, out: Path) -> dict[str, Any]:
    """A row: what a choice gives on a kind of text after some minutes."""
    folder = out / f"{kind}-{choice.replace(':', '')}-{minutes:g}"
    row = measured(
        "mdlm",
        str(data / f"{kind}.txt"),
        out=folder,
        cpu_seconds=60 * minutes,
        settings=[*settings(kind, choice), "training.compile=off"],
        weights=("ema",),
        target_error=0.02,
    )
    model = TextDiffusion.from_pretrained(str(folder))
    texts = model.generate(64, seed=1)
    text = (data / f"{kind}.txt").read_text(encoding="utf-8")
    train, real = text[: 9 * len(text) // 10], text[9 * len(text) // 10 :]
    total = min(sum(map(len, texts)), len(real))
    row["valid_words"] = round(valid_fraction(texts, lexicon(train)), 4)
    row["forward_bits"] = round(NgramScorer.fit([train], characters, 4).bits(texts), 4)
    row["reverse_bits"] = round(NgramScorer.fit(texts, characters, 4).bits([real[:total]]), 4)
    return {"kind": kind, "choice": choice, "minutes": minutes, **row, "example": texts[0][:160]}


def main() -> None:
    """Measures what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="*", default=[1.0])
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--choices", nargs="*", default=CHOICES)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = given.out / "rows.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    for minutes in given.minutes:
        for kind in given.kinds:
            for choice in given.choices:
                if any((row["kind"], row["choice"], row["minutes"]) == (kind, choice, minutes) for row in done):
                    continue
                row = measure(kind, choice, minutes, given.data, given.out)
                with rows.open("a") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
