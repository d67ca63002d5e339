"""Whether sentences say what their source says: E2E's descriptions of restaurants.

    python benchmarks/data_to_text.py RECIPE --data e2e_dev.csv --test e2e_test_w_refs.csv --cpu-seconds 60 --out FOLDER

Trains on the pairs of one file and writes one sentence for each of `num` meaning representations of the other, at
several weights of the guide cfg. A field counts as said if its value stands in the sentence (for familyFriendly:
"family", "child" or "kid"); the same is counted for the references, and for sentences of other sources. Prints one JSON
line.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections import defaultdict
from pathlib import Path

from training import arguments, trained_as

from textdiffusion.inference.api import TextDiffusion

FAMILY = ("family", "child", "kid")


def fields(source: str) -> dict[str, str]:
    """The fields of a meaning representation, name[value], ..."""
    return dict(re.findall(r"(\w+)\[([^\]]*)\]", source))


def mentioned(source: str, text: str) -> dict[str, bool]:
    """Which of the fields the text mentions."""
    lower = text.lower()
    return {
        name: any(word in lower for word in FAMILY) if name == "familyFriendly" else value.lower() in lower
        for name, value in fields(source).items()
    }


def mention_rates(sources: list[str], texts: list[str]) -> dict[str, float]:
    """The fraction of fields that the text mentions, each and all together."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for source, text in zip(sources, texts, strict=True):
        for name, is_mentioned in mentioned(source, text).items():
            counts[name].append(is_mentioned)
            counts["all"].append(is_mentioned)
    return {name: round(sum(mentions) / len(mentions), 3) for name, mentions in sorted(counts.items())}


def main() -> None:
    """One run, one line."""
    parser = arguments(__doc__, 60)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--weights", type=float, nargs="*", default=[1.0, 2.0, 3.0])
    given = parser.parse_args()
    text = {
        "data": given.data,
        "field": "ref",
        "source": "mr",
        "layout": "documents",
        "tokenizer": "words",
        "length": 96,
        "model_padding": True,
        "valid_fraction": 0.0,
        "test_fraction": 0.0,
        "condition_dropout": 0.1,
    }
    row = trained_as(given, text)
    with given.test.open(encoding="utf-8", newline="") as file:
        pairs = {record["mr"]: record["ref"] for record in csv.DictReader(file)}
    sources = [*pairs][:: max(1, len(pairs) // given.num)][: given.num]
    row["references"] = mention_rates(sources, [pairs[source] for source in sources])
    model, start = TextDiffusion.from_pretrained(given.out), time.process_time()
    texts: list[str] = []
    for weight in given.weights:
        texts = model.generate(source=sources, steps=given.steps, guides=[f"cfg:weight={weight}"])
        row[f"weight {weight:g}"] = mention_rates(sources, texts)
        row[f"weight {weight:g}, shuffled"] = mention_rates(sources, texts[1:] + texts[:1])["all"]
    row |= {
        "sampling_cpu_seconds": round(time.process_time() - start, 1),
        "examples": [*zip(sources, texts, strict=True)][:4],
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
