"""Which noise levels cdcd should train on: its densities on equal terms. Resumable; prints a table.

    python benchmarks/densities.py --data FOLDER --out FOLDER [--densities gumbel uniform ...] [--seeds 0 1]

`plays` of families.py (tinyshakespeare, characters, 600 CPU-seconds), with each density by its own defaults; the
Monte-Carlo draws of the bound are the same for all.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from families import SAME, bits
from rows import Rows

from textdiffusion.evaluation.sample_report import markdown_table

DENSITIES = ["gumbel", "time_warp", "cauchy", "uniform"]


def main() -> None:
    """All rows that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds corpora/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--densities", nargs="*", choices=DENSITIES, default=DENSITIES)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    given = parser.parse_args()
    rows, corpus = Rows(given.out / "rows.jsonl"), given.data / "corpora" / "tinyshakespeare.txt"
    cells = [["density", "seed", "bits per character", "steps"]]
    for seed in given.seeds:
        for density in given.densities:
            out, settings = given.out / f"{density}-{seed}", [*SAME, f"time_density.kind={density}"]
            row = rows.row({"density": density, "seed": seed}, partial(bits, "cdcd", corpus, settings, out, seed))
            cells.append([density, str(seed), f"{row['ema']:.3f} ± {row['ema_error']:.3f}", f"{row['steps']:,}"])
    print("\n".join(markdown_table(cells)))


if __name__ == "__main__":
    main()
