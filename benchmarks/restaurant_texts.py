"""The references of E2E as records with attributes that are read from the text: food, area, price and rating.

`write_restaurants(folder, out)` writes `restaurants/train.csv` and `restaurants/test.csv` below `out`. Each training
text stands there twice: with all its attributes, and with each of them hidden with probability 1/2, so that the model
learns texts for any number of wishes.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

FIELDS = ("text", "food", "wishes")
FOODS = ("Chinese", "English", "Fast food", "French", "Indian", "Italian", "Japanese")
WISHES = {
    "riverside": r"riverside|by the river|near the river|on the river",
    "city centre": r"city cent(?:re|er)|cent(?:re|er) of the city",
    "cheap": r"cheap|inexpensive|low[- ]pric|low price|less than £ ?20|under £ ?20",
    "moderate": r"moderate|£ ?20 ?- ?(?:£ ?)?25|average pric",
    "expensive": r"(?<!in)expensive|pricey|high[- ]pric|high(?:er)? price|more than £ ?30|over £ ?30",
    "low rating": r"1 out of 5|one star|1 star|low(?:ly)? rat|low customer rat|poor(?:ly)? rat",
    "average rating": r"3 out of 5|three star|3 star|average (?:customer )?rat",
    "high rating": r"5 out of 5|five star|5 star|high(?:ly)? rat|high customer rat",
}
_NAMED_FOOD = re.compile(r"\b(?:Raja Indian Cuisine)\b")  # a neighbour's name says nothing about the food
_PATTERNS = {wish: re.compile(pattern, re.IGNORECASE) for wish, pattern in WISHES.items()}


def joined(text: str) -> str:
    """A text without the spaces that its tokenization put before punctuation and inside words."""
    text = re.sub(r" ([.,;:!?%)]|n't\b|'\w+\b)", r"\1", text)
    return re.sub(r"(£|\() ", r"\1", re.sub(r"(?<=\w) ?- ?(?=\w)", "-", text)).strip()


def attributes(text: str) -> tuple[str, list[str]]:
    """The food of a text (empty: it names none, or several), and its wishes in the order of `WISHES`."""
    plain = _NAMED_FOOD.sub("", text).lower()
    foods = [food for food in FOODS if food.lower() in plain or food.lower().replace(" ", "-") in plain]
    return foods[0] if len(foods) == 1 else "", [wish for wish, pattern in _PATTERNS.items() if pattern.search(text)]


def records(texts: Iterable[str], seed: int, versions: int) -> Iterator[tuple[str, str, str]]:
    """Texts with all their attributes, and `versions` - 1 times with some of them."""
    rng = random.Random(seed)
    for text in texts:
        food, wishes = attributes(text)
        yield text, food, ", ".join(wishes)
        for _ in range(versions - 1):
            some = [wish for wish in wishes if rng.random() < 0.5]
            yield text, food if rng.random() < 0.5 else "", ", ".join(some)


def write_restaurants(folder: Path, out: Path) -> None:
    """Writes both files, unless they exist. Raises SystemExit if `folder` lacks the references."""
    target = out / "restaurants"
    if (target / "test.csv").exists():
        return
    found = {path.name: path for path in folder.rglob("e2e_*")}
    names = ("e2e_train_refs.txt", "e2e_test_w_refs.csv")
    if missing := [name for name in names if name not in found]:
        raise SystemExit(f"{folder} has no {' and no '.join(missing)}; name the folder of E2E with --data.")
    train = [joined(line) for line in found[names[0]].read_text(encoding="utf-8").splitlines() if line.strip()]
    with found[names[1]].open(encoding="utf-8", newline="") as file:
        test = [record["ref"] for record in csv.DictReader(file)]
    known = {*test}
    target.mkdir(parents=True, exist_ok=True)
    for name, texts, versions in (("train", [t for t in train if t not in known], 2), ("test", test, 1)):
        rows = list(records(texts, 0, versions))
        random.Random(1).shuffle(rows)
        with (target / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([FIELDS, *rows])
