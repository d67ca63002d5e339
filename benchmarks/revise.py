"""How many wrong words a revision mends, and how many good ones it harms.

    python benchmarks/revise.py RUN --data e2e_test_w_refs.csv --num 1000
    python benchmarks/revise.py RECIPE --train mtd_simple_train.txt --data mtd_simple_test.txt --cpu-seconds 120

One word in ten of each held-out sentence (at least one) is replaced by another word of the corpus: one with as many
tokens of the run, because a revision keeps the number of tokens. Then the run revises the sentence, with positions at
random and with its suspects. A wrong word is mended if the original is back, and changed if it is another; a good word
is harmed if it is no longer there. Words are compared by position where the number of words stays, else aligned. For
closed languages (mtd_simple) `legal` is the share of sentences that are in the language again. One JSON line each.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from textdiffusion.evaluation.metrics.legality import ProduceSentences
from textdiffusion.inference.api import TextDiffusion

SHARE = 0.1  # of the words
LONGEST = 42  # characters of a line of mtd_simple, its end included


def sentences(path: Path) -> list[str]:
    """The texts of a file: its lines, or the column `ref` of a table, each once, in order."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(dict.fromkeys(row["ref"] for row in csv.DictReader(file)))
    return list(dict.fromkeys(path.read_text(encoding="utf-8").splitlines()))


def corrupted(text: str, by_size: dict[int, list[str]], sizes: dict[str, int], draw: random.Random) -> list[str] | None:
    """The words with a share replaced by others of as many tokens (None: no word has another of its size)."""
    words = text.split(" ")
    open_ = [i for i, word in enumerate(words) if len(by_size[sizes[word]]) > 1]
    if not open_:
        return None
    for i in draw.sample(open_, min(len(open_), max(1, round(SHARE * len(words))))):
        words[i] = draw.choice([other for other in by_size[sizes[words[i]]] if other != words[i]])
    return words


def outcome(original: Sequence[str], wrong: Sequence[str], revised: Sequence[str]) -> dict[str, int]:
    """How many wrong and good words there were, and what became of them."""
    kept: dict[int, int] = {}
    if len(revised) == len(wrong):
        kept = {i: i for i in range(len(wrong))}
    else:
        for block in SequenceMatcher(None, wrong, revised, autojunk=False).get_matching_blocks():
            kept |= {block.a + k: block.b + k for k in range(block.size)}
    counts = dict.fromkeys(("wrong", "mended", "changed", "good", "harmed"), 0)
    for i, (word, written) in enumerate(zip(original, wrong, strict=True)):
        now = revised[kept[i]] if i in kept else None
        if word == written:
            counts["good"] += 1
            counts["harmed"] += now != word
        else:
            counts["wrong"] += 1
            counts["mended"] += now == word
            counts["changed"] += now not in (word, written)
    return counts


def measured(
    model: TextDiffusion,
    texts: Sequence[str],
    num: int,
    select: str,
    strength: float,
    temperature: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Revises `num` corrupted texts; the row of the table."""
    draw = random.Random(seed)
    vocabulary = sorted({word for text in texts for word in text.split(" ") if word})
    sizes = {word: len(model.tokenizer.encode_continuation(f" {word}")) for word in ["", *vocabulary]}
    by_size: dict[int, list[str]] = {size: [] for size in sizes.values()}
    for word in vocabulary:
        by_size[sizes[word]].append(word)
    fits = [text for text in texts if len(model.tokenizer.encode(text)) < model.config.text.length]
    pairs = [
        (text, words)
        for text in draw.sample(fits, min(len(fits), num))
        if (words := corrupted(text, by_size, sizes, draw))
    ]
    drafts = [" ".join(words) for _, words in pairs]
    start = time.process_time()
    revised = model.revise(drafts, strength=strength, select=select, temperature=temperature, seed=seed)
    seconds = time.process_time() - start
    total = dict.fromkeys(("wrong", "mended", "changed", "good", "harmed"), 0)
    for (text, words), now in zip(pairs, revised, strict=True):
        for name, count in outcome(text.split(" "), words, now.split(" ")).items():
            total[name] += count
    row = {
        "select": select,
        "strength": strength,
        "temperature": temperature,
        "sentences": len(pairs),
        "mended": round(total["mended"] / total["wrong"], 3),
        "changed": round(total["changed"] / total["wrong"], 3),
        "harmed": round(total["harmed"] / total["good"], 3),
        "cpu_seconds": round(seconds, 1),
    }
    with suppress(ValueError):  # of other languages
        language = ProduceSentences.from_lines(texts)
        row |= {"legal_before": round(language.legal(drafts), 3), "legal": round(language.legal(revised), 3)}
    return row | {"examples": list(zip(drafts, revised, strict=True))[:3]}


def main() -> None:
    """One line for each way to select and each strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run or a packaged model; with --train, a recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="train the recipe on this file first")
    parser.add_argument("--out", type=Path, default=Path("runs/revise"))
    parser.add_argument("--cpu-seconds", type=float, default=120)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--strength", type=float, action="append", default=[])
    parser.add_argument("--temperature", type=float, default=0.0)
    given = parser.parse_args()
    run = given.run
    if given.train:
        from training import trained

        text = {"data": str(given.train), "layout": "lines", "length": LONGEST, "model_padding": True}
        trained(run, text, cpu_seconds=given.cpu_seconds, out=given.out, settings=given.set, threads=1, seed=0)
        run = str(given.out)
    model, texts = TextDiffusion.from_pretrained(run), sentences(given.data)
    for select in ("random", "suspect"):
        for strength in given.strength or (0.1, 0.2, 0.3):
            row = measured(model, texts, given.num, select, strength, given.temperature)
            print(json.dumps({"run": given.run, "data": given.data.name} | row), flush=True)


if __name__ == "__main__":
    main()
