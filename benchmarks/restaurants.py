"""The texts of the model `restaurants`: descriptions of restaurants (E2E NLG, CC BY-SA 4.0) with what they say.

    python benchmarks/restaurants.py --data E2E_FOLDER --out FOLDER
    python benchmarks/restaurants.py --out FOLDER --measure RUN [--num 500]

Reads e2e_train_refs.txt, e2e_dev.csv and e2e_test_w_refs.csv and writes train.csv and test.csv with the columns `text`,
`food` (the label) and `wishes` (the source: area, price and rating, each left out at random). The training references
come without their meaning representations, so `attributes` reads food, area, price and rating off the text itself; the
same function judges whether a model wrote what it was asked for.

`--measure` asks a run for the food and the wishes of test records and prints, as JSON: the share of asked attributes
that the texts have (and have not otherwise), the share of texts that are not in the training data, and bits per word
under a word 4-gram of the training texts, beside those of the test texts.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textdiffusion.evaluation.ngram_scorer import NgramScorer, words
from textdiffusion.inference.api import TextDiffusion

NAMES = re.compile(
    r"Raja Indian Cuisine|Rainbow Vegetarian Caf[eé]|The Golden Curry|Bibimbap House|The Rice Boat", re.I
)

POUNDS = r"£?\s*"
PATTERNS: dict[str, dict[str, str]] = {
    "food": {
        "Chinese": r"\bchinese\b",
        "English": r"\b(english|british)\b",
        "Fast food": r"\bfast[- ]food",
        "French": r"\bfrench\b",
        "Indian": r"\bindian\b",
        "Italian": r"\bitalian\b",
        "Japanese": r"\b(japanese|sushi)\b",
    },
    "area": {
        "riverside": r"\b(riverside|river|riverbank)\b",
        "city centre": r"\b((city|town)[- ](centre|center)|(centre|center) of (the )?(city|town)|"
        r"in the (centre|center)|downtown|central)\b",
    },
    "price": {
        "cheap": rf"\b(cheap\w*|inexpensive\w*|affordabl[ey]|low(er|ly)?[- ](price|cost)\w*|low price|low in price|"
        rf"(less|lower) than {POUNDS}20|(under|below) {POUNDS}20|price\w* (range )?(is|are) low|low range)\b",
        "moderate": rf"\b(moderate\w*|average(ly)?[- ]pric\w*|mid[- ](price|range)\w*|reasonabl[ey]|"
        rf"{POUNDS}20\s*(-|to|and|–)\s*{POUNDS}25)\b|£20\s*-\s*£?25",
        "expensive": rf"\b((?<!in)expensive\w*|high(er|ly)?[- ](price|cost)\w*|high end|high-end|pricey|"
        rf"(more|higher) than {POUNDS}30|(over|above) {POUNDS}30|prices? (range )?(is|are) high|high range)\b",
    },
    "rating": {
        "low rating": r"\b((1|one)([- ]out[- ]of[- ](5|five)|/5|[- ]stars?)|low(ly)?[- ](customer[- ])?(rat|review)\w*|"
        r"poor(ly)?[- ](customer[- ])?(rat|review)\w*|rat(ing|ed)s?( is| are| of| as)? (low|poor)|poor(ly)? rated|"
        r"low customer|customer rating is low)\b",
        "average rating": r"\b((3|three)([- ]out[- ]of[- ](5|five)|/5|[- ]stars?)|"
        r"average(ly)?[- ](customer[- ])?(rat|review)\w*|"
        r"rat(ing|ed)s?( is| are| of| as)?( an?)? average|average customer)\b",
        "high rating": r"\b((5|five)([- ]out[- ]of[- ](5|five)|/5|[- ]stars?)|"
        r"high(ly)?[- ](customer[- ])?(rat|review)\w*|well[- ]rated|excellent (customer )?rat\w*|"
        r"rat(ing|ed)s?( is| are| of| as)? (high|excellent)|high customer)\b",
    },
}
COMPILED = {name: {value: re.compile(p, re.I) for value, p in values.items()} for name, values in PATTERNS.items()}
TEMPERATURE = 0.7  # at which the model writes best
FILES = TRAIN, DEV, TEST = "e2e_train_refs.txt", "e2e_dev.csv", "e2e_test_w_refs.csv"
WISHES = ("area", "price", "rating")


def attributes(text: str) -> dict[str, str]:
    """What a description says of food, area, price and rating; an attribute with two values is left out."""
    text = NAMES.sub("", text)
    found = {
        name: [value for value, pattern in values.items() if pattern.search(text)] for name, values in COMPILED.items()
    }
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def plain(text: str) -> str:
    """A tokenised reference as people write it."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([.,;:!?%)])", r"\1", text)
    text = re.sub(r"([£(]) ", r"\1", text)
    text = re.sub(r" ?- ?", "-", text)
    return re.sub(r" ('(s|t|re|ve|ll|d|m)\b)", r"\1", text)


def records(texts: Iterable[str], draws: random.Random) -> Iterable[tuple[str, str, str]]:
    """Text, food and wishes; each attribute is in the wishes with probability 0.7, the food in the label with 0.8."""
    for text in texts:
        said = attributes(text)
        food = said.get("food", "") if draws.random() < 0.8 else ""
        yield text, food, ", ".join(said[name] for name in WISHES if name in said and draws.random() < 0.7)


def write(path: Path, texts: list[str], copies: int, draws: random.Random) -> None:
    """A table of records; `copies` draws of the wishes for each text."""
    rows = [record for _ in range(copies) for record in records(texts, draws)]
    draws.shuffle(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "food", "wishes"))
        writer.writerows(rows)


def write_tables(data: Path, out: Path) -> None:
    """Writes train.csv and test.csv, which share no text."""
    if missing := [name for name in FILES if not (data / name).is_file()]:
        raise SystemExit(f"{data} has no {' and no '.join(missing)}; give the folder with the files of E2E.")
    out.mkdir(parents=True, exist_ok=True)
    lines = (data / TRAIN).read_text(encoding="utf-8").splitlines()
    dev, test = ([plain(row["ref"]) for row in read(data / name)] for name in (DEV, TEST))
    train = sorted({*map(plain, lines), *dev} - {*test})
    draws = random.Random(0)
    write(out / "train.csv", train, 2, draws)
    write(out / "test.csv", sorted({*test}), 1, draws)
    print(f"{len(train):,} texts to train on (each twice, with other wishes), {len({*test}):,} to test on")


def read(path: Path) -> list[dict[str, str]]:
    """The records of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def measured(model: TextDiffusion, folder: Path, num: int, temperature: float) -> dict[str, Any]:
    """What a run writes for the wishes of test records."""
    train = list(dict.fromkeys(row["text"] for row in read(folder / "train.csv")))
    test = read(folder / "test.csv")
    possible = [row for row in test if row["food"] and row["wishes"]]
    asked = random.Random(1).sample(possible, min(num, len(possible)))
    num = len(asked)
    texts = [""] * num
    for food in sorted({row["food"] for row in asked}):
        rows = [i for i, row in enumerate(asked) if row["food"] == food]
        sources = [asked[i]["wishes"] for i in rows]
        for i, text in zip(rows, model.generate(source=sources, label=food, temperature=temperature), strict=True):
            texts[i] = text
    followed = contradicted = total = 0
    for row, text in zip(asked, texts, strict=True):
        said = attributes(text)
        for name, value in {"food": row["food"], **_by_name(row["wishes"])}.items():
            total += 1
            followed += said.get(name) == value
            contradicted += said.get(name) not in (None, value)
    scorer = NgramScorer.fit(train, words, 4)

    def bits_per_word(some: list[str]) -> float:
        return scorer.bits(some) * sum(map(len, some)) / sum(len(text.split()) for text in some)

    references = [row["text"] for row in test]
    return {
        "texts": num,
        "followed": round(followed / total, 4),
        "contradicted": round(contradicted / total, 4),
        "novel": round(1 - sum(text in set(train) for text in texts) / num, 4),
        "bits_per_word": round(bits_per_word(texts), 3),
        "bits_per_word_of_test": round(bits_per_word(references), 3),
        "examples": [f"{row['food']}; {row['wishes']}: {text}" for row, text in zip(asked[:10], texts, strict=False)],
    }


def _by_name(wishes: str) -> dict[str, str]:
    return {name: value for value in wishes.split(", ") for name in WISHES if value in PATTERNS[name]}


def main() -> None:
    """Writes both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", metavar="RUN")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    given = parser.parse_args()
    if given.measure:
        print(
            json.dumps(
                measured(TextDiffusion.from_pretrained(given.measure), given.out, given.num, given.temperature),
                indent=1,
            )
        )
        return
    if not given.data:
        parser.error("give --data, or --measure")
    write_tables(given.data, given.out)


if __name__ == "__main__":
    main()
