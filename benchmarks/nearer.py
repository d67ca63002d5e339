"""Between masks and left to right at equal compute: exact likelihoods and bounds of each arm. Resumable.

    python benchmarks/nearer.py --data FOLDER --out FOLDER [--cpu-seconds 600] [--arms dual mdlm ...] [--seeds 0 1 2]
    python benchmarks/nearer.py --out FOLDER --table

The network, text and settings of the task `articles` of families.py. `left`: bits per character from left to right,
exact, where the run predicts the next token. `bound`: the masked bound, with a Monte-Carlo error below 0.02. The other
columns are the exact likelihoods of revealing `--windows` windows in an order, so many positions at a time.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from families import LENGTH, settings_of
from rows import Row, Rows
from training import trained

from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.heldout import held_out
from textdiffusion.evaluation.sample_report import markdown_table
from textdiffusion.inference.api import TextDiffusion
from textdiffusion.objectives import MaskedLikelihood, NextTokenLikelihood
from textdiffusion.samplers.order_likelihood import OrderLikelihood
from textdiffusion.scoring.likelihood import bits_per_character

ARMS: dict[str, tuple[str, list[str]]] = {
    "autoregressive": ("autoregressive", []),
    "mdlm": ("mdlm", []),
    "dual": ("dual", []),
    "dual, weight 0.25": ("dual", ["objective.next_weight=0.25"]),
    "dual, weight 0.75": ("dual", ["objective.next_weight=0.75"]),
    "block_diffusion 4": ("block_diffusion", ["process.block_size=4"]),
    "block_diffusion 16": ("block_diffusion", ["process.block_size=16"]),
}
WINDOWS = 1000  # of the test part, evenly spaced
ORDERS = {"left": 1, "entropy": 1, "entropy / 4": 4}


def measured(arm: str, data: Path, out: Path, seed: int, cpu_seconds: float, windows: int) -> Row:
    """Trains an arm and measures its averaged weights in every way that it has."""
    recipe, changes = ARMS[arm]
    text = {"data": str(data / "corpora" / "wiki_text8style.txt"), "valid_fraction": 0.05, "test_fraction": 0.05}
    settings = [*settings_of(recipe), *LENGTH, *changes]
    row = trained(recipe, text, cpu_seconds=cpu_seconds, out=out, settings=settings, threads=1, seed=seed)
    run = TextDiffusion.from_pretrained(str(out))
    row["parameters"] = sum(p.numel() for p in run.model.parameters())
    likelihoods = {"next": NextTokenLikelihood(), "bound": MaskedLikelihood()}
    for name, likelihood in likelihoods.items():
        if isinstance(run.model.process, likelihood.processes):
            part = held_out(run, default_cache(), count=WINDOWS)
            estimate = bits_per_character(run.model, part, likelihood, batch_size=256, target_error=0.02)
            row |= {name: round(estimate.bits, 4), f"{name}_error": round(estimate.monte_carlo_error, 4)}
    if windows and isinstance(run.model.process, OrderLikelihood.processes):
        text_part = held_out(run, default_cache(), count=windows)
        for name, per_step in ORDERS.items():
            likelihood = OrderLikelihood(order=name.partition(" ")[0], per_step=per_step)
            row[name] = round(bits_per_character(run.model, text_part, likelihood).bits, 4)
    return row


def table(rows: list[Row]) -> str:
    """A line for each arm and seed."""
    names = ["next", "bound", *ORDERS]
    cells = [["arm", "CPU-seconds", "seed", "M parameters", "steps", *names]]
    for row in rows:
        figures = [f"{row[name]:.3f}" if name in row else "" for name in names]
        size = f"{row['parameters'] / 1e6:.2f}"
        cells.append([row["arm"], f"{row['cpu_seconds']:g}", str(row["seed"]), size, f"{row['steps']:,}", *figures])
    return "\n".join(markdown_table(cells))


def main() -> None:
    """All rows that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds corpora/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu-seconds", type=float, default=600)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--windows", type=int, default=64, help="windows for the likelihoods of orders (0: none)")
    parser.add_argument("--table", action="store_true", help="print the table of what was measured and leave")
    given = parser.parse_args()
    rows = Rows(given.out / "rows.jsonl")
    for seed in given.seeds if not given.table else []:
        for arm in given.arms:
            out = given.out / f"{arm.replace(' ', '-').replace(',', '')}-{given.cpu_seconds:g}-{seed}"
            make = partial(measured, arm, given.data, out, seed, given.cpu_seconds, given.windows)
            rows.row({"arm": arm, "seed": seed, "cpu_seconds": given.cpu_seconds}, make)
    print(table(rows))


if __name__ == "__main__":
    main()
