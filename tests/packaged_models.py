"""Stand-ins for the models that come with the package: the same folders, with tiny networks of random weights."""

import csv
from collections.abc import Callable
from pathlib import Path

from textdiffusion import TextDiffusion
from textdiffusion.data.builtin.tasks import parse_task
from textdiffusion.storage.packaged import Card, Excerpt, Figure, write_card

MakeRun = Callable[..., Path]
SPEECHES = ("The red pear is fresh.", "My lord, the old fig of a lazy king is sweet; both crowns jump quickly.")
PLAY = "MACBETH:\n{}\n\nBANQUO:\n{}\n\n".format(*SPEECHES)
RESTAURANTS = [
    ("The Vaults is a cheap pub in the riverside area.", "name[Vaults], area[riverside]", "Italian"),
    ("The Mill is a fine English coffee shop, restaurant or pub.", "name[Mill], priceRange[cheap]", "English"),
    ("Aromi is a cheap English pub.", "name[Aromi], priceRange[cheap]", "English"),
    ("Zizzi serves Italian food by the river.", "name[Zizzi], area[riverside]", "Italian"),
]
SUDOKU = "sudoku:easy:60:7"


def make_models(root: Path, tiny_run: MakeRun) -> Path:
    """Writes the three models below `root`."""
    texts = root.parent / "texts"
    texts.mkdir(exist_ok=True)
    plays, restaurants = texts / "plays.txt", texts / "restaurants.csv"
    plays.write_text(PLAY * 60, encoding="utf-8")
    with restaurants.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "attributes", "food"), *RESTAURANTS * 40])
    _make(root, "shakespeare", tiny_run("mdlm", f"text.data={plays}"), plays.read_text(encoding="utf-8")[:600])
    settings = (f"text.data={restaurants}", "text.field=text", "text.source=attributes", "text.label=food")
    settings += (
        "text.labels=[English,Italian]",
        "text.condition_dropout=0.1",
        "text.layout=documents",
        "text.length=96",
        "text.model_padding=true",
    )
    _make(root, "restaurants", tiny_run("mdlm", *settings), restaurants.read_text(encoding="utf-8")[:400], ".csv")
    task = parse_task(SUDOKU)
    assert task is not None
    settings = [f"text.{name}={str(value).lower()}" for name, value in task.text_settings().items() if value != ""]
    _make(root, "sudoku", tiny_run("mdlm", "text.data=sudoku:easy:3000", *settings))
    return root


def _make(root: Path, name: str, run: Path, excerpt: str = "", suffix: str = ".txt") -> None:
    model = TextDiffusion.from_pretrained(run)
    folder = model.save_pretrained(root / name, dtype="bfloat16")
    data = f"heldout{suffix}" if excerpt else SUDOKU
    if excerpt:
        (folder / data).write_text(excerpt, encoding="utf-8")
    command = f"textdiffusion evaluate {name} --windows 4 --num 0"
    write_card(
        folder,
        Card(
            name,
            "a stand-in",
            "a few lines",
            "MIT",
            "mdlm",
            sum(p.numel() for p in model.model.parameters()),
            "none",
            "--steps 6",
            (Figure("bits per character", 9.9, 0.1, command),),
            Excerpt(data, 4, 9.9, 0.1, 2.5),
            {},
        ),
    )
