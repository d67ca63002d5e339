"""Every recipe on equal terms: the same trunk, text and CPU-seconds. Resumable; prints the table of docs/families.md.

    python benchmarks/families.py --data FOLDER --out FOLDER [--recipes cdcd mdlm ...] [--tasks sentences plays ...]
    python benchmarks/families.py --out FOLDER --table

Characters throughout, about 1 M parameters. `sentences`: 180 CPU-seconds on mtd_simple, the fraction of 1,000 samples
that are legal, and novel and legal. `plays` and `articles`: 600 CPU-seconds on tinyshakespeare (first 90 % / last
10 %) and on wiki_text8style (90 / 5 / 5 %), bits per character with a Monte-Carlo error below 0.04, beside a modified
Kneser-Ney n-gram. `pace`: training tokens a CPU-second, and CPU-seconds of a sample of 128 characters in 64 steps
(left to right: 128).
`large`, if asked for: `articles` at about 10 M parameters, 3,600 CPU-seconds.
A row that exists is kept; a run that was stopped goes on where its last checkpoint left off. `results/families` beside
this file holds rows that were measured: as `--out`, it goes on from them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import held_out
import simple_sentences
from rows import Row, Rows
from training import trained

from textdiffusion import recipes
from textdiffusion.evaluation.sample_report import markdown_table
from textdiffusion.inference.api import TextDiffusion
from textdiffusion.samplers.autoregressive import Autoregressive

SAME = ["backbone.width=128", "backbone.depth=3", "training.compile=on"]
PAIRS = ["denoiser.ngram_size=2"]  # tables of triples have 2 M parameters
LENGTH = ["text.length=128"]
LARGE = ["backbone.width=384", "backbone.depth=5"]


def settings_of(recipe: str) -> list[str]:
    """Its defaults but for what is to be equal."""
    return SAME + (PAIRS if hasattr(recipes.get(recipe)().denoiser, "ngram_size") else [])


def sentences(recipe: str, settings: list[str], data: Path, out: Path, seed: int) -> Row:
    """mtd_simple, 180 CPU-seconds."""
    corpus = data / "corpora" / "mtd_simple_train.txt"
    return simple_sentences.measured(recipe, corpus, out=out, cpu_seconds=180, settings=settings, seed=seed)


def bits(
    recipe: str,
    corpus: Path,
    settings: list[str],
    out: Path,
    seed: int,
    valid: float = 0.0,
    test: float = 0.1,
    cpu_seconds: float = 600,
) -> Row:
    """Bits per character of averaged weights, with an error that tells families apart."""
    return held_out.measured(
        recipe,
        str(corpus),
        out=out,
        cpu_seconds=cpu_seconds,
        valid_fraction=valid,
        test_fraction=test,
        settings=settings + LENGTH,
        seed=seed,
        weights=("ema",),
        target_error=0.04,
    )


def plays(recipe: str, settings: list[str], data: Path, out: Path, seed: int) -> Row:
    """tinyshakespeare, 600 CPU-seconds."""
    return bits(recipe, data / "corpora" / "tinyshakespeare.txt", settings, out, seed)


def articles(recipe: str, settings: list[str], data: Path, out: Path, seed: int, cpu_seconds: float = 600) -> Row:
    """wiki_text8style, 600 CPU-seconds, on the test part."""
    return bits(recipe, data / "corpora" / "wiki_text8style.txt", settings, out, seed, 0.05, 0.05, cpu_seconds)


def large(recipe: str, settings: list[str], data: Path, out: Path, seed: int) -> Row:
    """`articles` at about 10 M parameters, 3,600 CPU-seconds."""
    rate = recipes.get(recipe)().training.lr * 128 / 384  # what the width asks for
    return articles(recipe, [*settings, *LARGE, f"training.lr={rate}"], data, out, seed, 3600)


def pace(recipe: str, settings: list[str], data: Path, out: Path, seed: int) -> Row:
    """Training and sampling speed after 20 CPU-seconds on tinyshakespeare."""
    corpus = str(data / "corpora" / "tinyshakespeare.txt")
    row = trained(recipe, {"data": corpus}, cpu_seconds=20, out=out, settings=settings + LENGTH, threads=1, seed=seed)
    model = TextDiffusion.from_pretrained(str(out))
    start = time.process_time()
    steps = None if isinstance(model.config.sampler, Autoregressive) else 64  # it takes one a character
    model.generate(num=16, length=128, steps=steps, seed=0)
    row["sampling_cpu_seconds"] = round((time.process_time() - start) / 16, 3)
    return row | {"tokens_per_cpu_second": round(row["tokens"] / 20)}


TASKS: dict[str, Callable[[str, list[str], Path, Path, int], Row]] = {
    task.__name__: task for task in (sentences, plays, articles, pace, large)
}


def mean_fraction(rows: Sequence[Row], name: str) -> str:
    """The mean over seeds, and their standard deviation where there are several."""
    found = [row[name] for row in rows]
    return f"{mean(found):.1%}" + (f" ({stdev(found):.1%})" if len(found) > 1 else "") if found else ""


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each recipe, averaged weights. Bits and pace are those of the first seed."""
    bits_and_pace = ["plays", "articles", "tokens / CPU-s", "CPU-s / sample", "articles, 10 M"]
    cells = [["recipe", "M parameters", "legal", "novel and legal", *bits_and_pace]]
    for recipe in sorted({row["recipe"] for row in rows}):
        found = {task: [row for row in rows if (row["recipe"], row["task"]) == (recipe, task)] for task in TASKS}

        def cell(task: str, text: str, found: dict[str, list[Row]] = found) -> str:
            return text.format(**found[task][0]) if found[task] else ""

        size = next((row["parameters"] / 1e6 for row in found["articles"] + found["plays"]), None)
        cells.append(
            [
                recipe,
                f"{size:.2f}" if size else "",
                mean_fraction(found["sentences"], "ema_legal"),
                mean_fraction(found["sentences"], "ema_novel_and_legal"),
                cell("plays", "{ema:.3f} ± {ema_error:.3f}"),
                cell("articles", "{ema:.3f} ± {ema_error:.3f}"),
                cell("pace", "{tokens_per_cpu_second:,}"),
                cell("pace", "{sampling_cpu_seconds:.2f}"),
                cell("large", "{ema:.3f} ± {ema_error:.3f}"),
            ]
        )
    counted = {row["task"]: f"{row['kneser_ney']:.3f}" for row in rows if "kneser_ney" in row}
    n_gram = [counted.get(task, "") for task in ("plays", "articles")]
    return "\n".join(markdown_table([*cells, ["Kneser-Ney 7-gram", "", "", "", *n_gram, "", "", ""]]))


def main() -> None:
    """All rows that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds corpora/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="*", default=recipes.names())
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS)[:4])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--table", action="store_true", help="print the table of what was measured and leave")
    given = parser.parse_args()
    rows = Rows(given.out / "rows.jsonl")
    wanted = [(task, seed, recipe) for task in given.tasks for seed in given.seeds for recipe in given.recipes]
    for task, seed, recipe in wanted if not given.table else []:
        out = given.out / f"{recipe}-{task}-{seed}"
        measure = partial(TASKS[task], recipe, settings_of(recipe), given.data, out, seed)
        rows.row({"recipe": recipe, "task": task, "seed": seed}, measure)
    print(table(rows))


if __name__ == "__main__":
    main()
