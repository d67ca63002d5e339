"""Prepares every file that is named, and says which ones are refused and why: any ordinary text should be usable.

    python benchmarks/any_text.py FILES ... [--tokenizer bytes] [--steps 5]

With `--steps`, a tiny network is also trained on each. Tables (.csv, .jsonl, ...) are read as plain text, through a
copy named .txt, or as records if `--field` names the field with the text.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.data.compression import file_type
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import prepare
from textdiffusion.data.tables import TABLE_SUFFIXES
from textdiffusion.training.run import train

SMALL = ("backbone.width=64", "backbone.depth=1", "training.batch_size=2", "training.compile=off")


def check(path: Path, config: TextConfig, recipe: str, steps: int) -> list[str]:
    """Prepare a file, and train on it if `steps` is positive; returns the notes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not config.field and file_type(path) in (*TABLE_SUFFIXES, ".json"):
            path = Path(shutil.copy(path, folder / f"{path.name}.txt"))
        config = replace(config, data=str(path))
        notes = list(prepare(config, folder / "cache", console=Console(quiet=True)).notes)
        if steps:
            settings = (*SMALL, f"training.steps={steps}")
            whole = replace(apply_overrides(recipes.get(recipe)(), settings), text=config)
            train(whole, folder / "run", cache=folder / "cache", device="cpu", console=Console(quiet=True))
        return notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokenizer", default="characters")
    parser.add_argument("--field", default="")
    parser.add_argument("--recipe", default="mdlm")
    parser.add_argument("--steps", type=int, default=0)
    arguments = parser.parse_args()
    config = TextConfig(data="x", tokenizer=arguments.tokenizer, field=arguments.field)
    outcomes: Counter[str] = Counter()
    for path in arguments.files:
        try:
            notes = check(path, config, arguments.recipe, arguments.steps)
            outcomes["used"] += 1
            for note in notes:
                print(f"note     {note}")
        except UserError as error:
            outcomes["refused"] += 1
            print(f"refused  {path}: {error}")
        except Exception as error:  # anything else is a fault of ours
            outcomes["failed"] += 1
            print(f"FAILED   {path}: {type(error).__name__}: {error}")
        sys.stdout.flush()
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))


if __name__ == "__main__":
    main()
