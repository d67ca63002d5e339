"""How far guidance without a classifier moves a run that is told a label: the colour of a sentence.

    python benchmarks/colours.py RECIPE --data mtd_simple_train.txt --cpu-seconds 60 --out FOLDER [--num 50]

Every sentence, "The COLOUR PRODUCE is STATE.", is labelled with its colour, and one in ten is trained without. For each
weight of the guide cfg: the fraction of samples with the colour asked for, the largest fraction that any other colour
has, and the fraction of legal sentences, over `num` samples of each colour. Prints one JSON line.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from training import arguments, trained_as

from textdiffusion.evaluation.metrics.legality import ProduceSentences
from textdiffusion.inference.api import TextDiffusion

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


def colour(sentence: str) -> str:
    """The second word."""
    return [*sentence.split(), "", ""][1]


def steered(model: TextDiffusion, language: ProduceSentences, weight: float, num: int, steps: int) -> dict[str, float]:
    """What the samples of all colours under one weight are like."""
    right, other, legal = 0.0, 0.0, 0.0
    labels = model.config.text.labels
    for label in labels:
        texts = model.generate(num, steps=steps, label=label, guides=[f"cfg:weight={weight}"])
        shares = Counter(map(colour, texts))
        right += shares.pop(label, 0) / num
        other = max(other, *(count / num for count in shares.values()), 0.0)
        legal += language.legal(texts)
    return {"right": round(right / len(labels), 4), "most_other": other, "legal": round(legal / len(labels), 4)}


def main() -> None:
    """One run, one line."""
    parser = arguments(__doc__, 60)
    parser.add_argument("--num", type=int, default=50)
    parser.add_argument("--steps", type=int, default=32)
    given = parser.parse_args()
    lines = Path(given.data).read_text().splitlines()
    table = given.out.with_name(f"{given.out.name}.tsv")
    if not table.exists():
        table.write_text("colour\tsentence\n" + "".join(f"{colour(line)}\t{line}\n" for line in lines))
    text = {
        "data": str(table),
        "field": "sentence",
        "label": "colour",
        "layout": "documents",
        "tokenizer": "words",
        "length": 10,
        "model_padding": True,
        "valid_fraction": 0.0,
        "test_fraction": 0.0,
        "condition_dropout": 0.1,
    }
    row = trained_as(given, text)
    language, model = ProduceSentences.from_lines(lines), TextDiffusion.from_pretrained(given.out)
    start = time.process_time()
    row["weights"] = {weight: steered(model, language, weight, given.num, given.steps) for weight in WEIGHTS}
    row["sampling_cpu_seconds"] = round(time.process_time() - start, 1)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
