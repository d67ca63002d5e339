"""Success and fluency of what can be asked of descriptions of restaurants (E2E), against the weight of asking.

    python benchmarks/restaurants.py RUN --judge RUN --data e2e_dev.csv --test e2e_test_w_refs.csv --out FOLDER
        [--wishes food area priceRange rating length span] [--through prediction] [--weights 0.5 1 2 4] [--num 100]
        [--steps 32]

RUN and the autoregressive judge are runs over the words of the references of --data. The wishes: values of a field, by
a classifier of it, which is kept in FOLDER and trained if there is none; a number of words, by a template; three words
in a row, somewhere, by the guide `word`. Values are those of --test that --data has too, and phrases are of its
references. Success: the value stands in the text, the phrase does, or its words are as many as asked for, or up to two
more or fewer. `wrong`: the same of the next value, which was not asked for. Fluency: bits per word under the judge,
exact. Each weight gives `num` texts in all. Beside them: the references, unguided texts, and the best of n unguided by
the classifier (n = 2 calls the network as often as guidance does). Rows that FOLDER/rows.jsonl has are not made again;
prints a JSON line for each new row, and for each wish whether success rises with the weight, to two standard errors.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from data_to_text import fields, mentioned
from rows import Row, Rows
from steering import THROUGH, best, classifier, guides

from textdiffusion import TextDiffusion
from textdiffusion.guidance.constraints import Word

ATTRIBUTES = ("food", "area", "priceRange", "rating")
LENGTHS = (12, 18, 24, 30, 36)
SPAN_WEIGHTS = [2.0, 4.0, 8.0, None]
BEST = (2, 4)
PHRASES, WORDS = 10, 3

Pairs = list[tuple[dict[str, str], str]]  # the fields of a description, and its text
Wished = dict[str, list[str]]  # texts by what they were to say
Weight = float | None  # None: always
Steered = Callable[[str, Weight, int, int], list[str]]  # texts for a wish at a weight: their number and the seed
Says = Callable[[str, str], bool]  # whether a text, the second, says what was wished for


def pairs(path: Path) -> Pairs:
    """The descriptions in a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(fields(record["mr"]), record["ref"]) for record in csv.DictReader(file)]


def values(known: Pairs, test: Pairs, attribute: str) -> list[str]:
    """The values of a field that both have."""
    return sorted(set.intersection(*({each[attribute] for each, _ in of if attribute in each} for of in (known, test))))


def phrases(texts: list[str]) -> list[str]:
    """Words in a row, each a word of letters, from texts at random."""
    rng = np.random.default_rng(0)
    chosen: dict[str, None] = {}
    while len(chosen) < PHRASES:
        words = texts[int(rng.integers(len(texts)))].split(" ")
        start = int(rng.integers(max(1, len(words) - WORDS)))
        part = words[start : start + WORDS]
        if len(part) == WORDS and all(re.fullmatch("[a-z]+", word) for word in part):
            chosen[" ".join(part)] = None
    return list(chosen)


@dataclass
class Judged:
    """What is said of texts."""

    judge: TextDiffusion
    bits: dict[str, float] = field(default_factory=dict)

    def words(self, text: str) -> int:
        """Its words, punctuation being words too."""
        return len(self.judge.tokenizer.encode(text))

    def row(self, wished: Wished, says: Says) -> Row:
        """Figures of the texts."""
        hits = np.array([says(wish, text) for wish, texts in wished.items() for text in texts])
        after = dict(zip(wished, [*wished][1:] + [*wished][:1], strict=True))
        wrong = [says(after[wish], text) for wish, texts in wished.items() for text in texts]
        flat = [text for texts in wished.values() for text in texts]
        for text in {*flat} - {*self.bits, ""}:
            self.bits[text] = self.judge.score([text])[0].total
        spoken = [text for text in flat if text]
        return {
            "success": round(float(hits.mean()), 3),
            "error": round(float(hits.std() / len(hits) ** 0.5), 4),
            "wrong": round(float(np.mean(wrong)), 3),
            "bits_per_word": round(
                sum(map(self.bits.__getitem__, spoken)) / sum(self.words(text) + 1 for text in spoken), 3
            ),
            "words": round(float(np.mean([self.words(text) for text in flat])), 1),
            "distinct": round(sum(len({*texts}) for texts in wished.values()) / len(flat), 3),
            "example": flat[0],
        }


def rises(rows: Sequence[Row]) -> bool:
    """Whether success never falls from a weight to the next by more than two standard errors."""
    rows = sorted(rows, key=lambda row: math.inf if row["weight"] is None else row["weight"])
    return all(
        later["success"] >= row["success"] - 2 * math.hypot(row["error"], later["error"])
        for row, later in pairwise(rows)
    )


class Bench:
    """A run, asked for one thing after another."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.rows = given, Rows(given.out / "rows.jsonl")
        self.run = TextDiffusion.from_pretrained(given.run, device="cpu")
        self.judged = Judged(TextDiffusion.from_pretrained(given.judge, device="cpu"))
        self.known, self.test = pairs(given.data), pairs(given.test)
        unknown = self.run.tokenizer.unk_id
        self.readable = [(own, text) for own, text in self.test if unknown not in self.run.tokenizer.encode(text)]

    @cached_property
    def unguided(self) -> list[str]:
        """Texts as they come: for every wish the same."""
        return self.run.generate(max(BEST) * self.given.num, steps=self.given.steps)

    def row(self, wish: str, method: str, weight: Weight, make: Callable[[], Row]) -> Row:
        """A row and what it cost."""

        def timed() -> Row:
            start = time.process_time()
            return make() | {"cpu_seconds": round(time.process_time() - start, 1)}

        return self.rows.row({"wish": wish, "method": method, "weight": weight}, timed)

    def compare(
        self, wish: str, wishes: list[str], says: Says, method: str, steered: Steered, weights: Sequence[Weight]
    ) -> None:
        """Rows of one wish by one method."""
        each, plain = -(-self.given.num // len(wishes)), slice(self.given.num)
        rows = [
            self.row(wish, "unguided", 0.0, lambda: self.judged.row(dict.fromkeys(wishes, self.unguided[plain]), says))
        ]
        for weight in weights:

            def made(weight: Weight = weight) -> Row:
                texts = {one: steered(one, weight, each, seed) for seed, one in enumerate(wishes, 1)}
                return self.judged.row(texts, says)

            rows.append(self.row(wish, method, weight, made))
        print(json.dumps({"wish": wish, "method": method, "rises": rises(rows)}), flush=True)

    def attribute(self, name: str) -> None:
        """Values of a field, by a classifier."""
        given, labels, folder = self.given, values(self.known, self.test, name), self.given.out / name
        # Without a label for texts that do not say, not saying the one value would count as saying the other.
        examples = [(text, own.get(name, "none")) for own, text in self.known]
        judge = classifier(self.run, folder, examples, given.train_steps)

        def says(value: str, text: str) -> bool:
            return mentioned(f"{name}[{value}]", text)[name]

        def steered(label: str, weight: Weight, num: int, seed: int) -> list[str]:
            asked = guides(folder, label, weight or 0.0, given.through)
            return self.run.generate(num, steps=given.steps, seed=seed, guides=asked)

        self.compare(name, labels, says, given.through, steered, given.weights)
        for n in BEST:

            def chosen(n: int = n) -> Row:
                texts = self.unguided[: n * given.num]
                return self.judged.row({label: best(self.run, judge, label, texts, n) for label in labels}, says)

            self.row(name, f"best of {n}", 0.0, chosen)
        references = {label: [text for own, text in self.readable if own.get(name) == label][:100] for label in labels}
        self.row(name, "references", 0.0, lambda: self.judged.row(references, says))

    def length(self) -> None:
        """Numbers of words, by a template."""
        self.compare(
            "length",
            [str(n) for n in LENGTHS],
            lambda n, text: abs(self.judged.words(text) - int(n)) <= 2,
            "template",
            lambda n, _, num, seed: self.run.infill(f"[MASK:{n}]", num, steps=self.given.steps, seed=seed),
            [None],
        )

    def span(self) -> None:
        """Phrases, by the guide of words."""

        def steered(words: str, weight: Weight, num: int, seed: int) -> list[str]:
            guide = Word(words, weight=math.inf if weight is None else weight)
            return self.run.generate(num, steps=self.given.steps, seed=seed, guides=[guide])

        def says(words: str, text: str) -> bool:
            return bool(re.search(rf"\b{words}\b", text))

        self.compare("span", phrases([text for _, text in self.readable]), says, "word", steered, SPAN_WEIGHTS)


def main() -> None:
    """One line for each wish, method and weight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    for name in ("--judge", "--data", "--test", "--out"):
        parser.add_argument(name, type=Path, required=True)
    wishes = [*ATTRIBUTES, "length", "span"]
    parser.add_argument("--wishes", nargs="+", default=wishes, choices=wishes)
    parser.add_argument("--through", default="prediction", choices=THROUGH)
    parser.add_argument("--weights", nargs="+", type=float, default=[0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--train-steps", type=int, default=600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(given)
    for wish in given.wishes:
        bench.attribute(wish) if wish in ATTRIBUTES else getattr(bench, wish)()


if __name__ == "__main__":
    main()
