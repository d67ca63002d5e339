"""Time and memory of preparing a large text file for training.

    python benchmarks/preparation.py --gigabytes 1 [--tokenizer characters] [--normaliser none] --out FOLDER

Writes sentences of the built-in grammar until the file is that large, prepares it as `train` would, and prints one JSON
line: CPU-seconds, wall seconds, and the peak resident memory of the process in megabytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from rich.console import Console

from textdiffusion.data.builtin.grammar import sentences
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import prepare

SENTENCES = 100_000  # of which the file is made


def main() -> None:
    """One file, one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--tokenizer", default="characters")
    parser.add_argument("--normaliser", default="none")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "large.txt"
    write(file, int(given.gigabytes * 1e9))
    config = TextConfig(data=str(file), tokenizer=given.tokenizer, normaliser=given.normaliser)
    cpu, wall = time.process_time(), time.perf_counter()
    prepare(config, given.out / "cache", console=Console(stderr=True))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    row = {"bytes": file.stat().st_size, "tokenizer": given.tokenizer, "normaliser": given.normaliser}
    print(json.dumps(row | {"cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1), "peak_mb": round(peak)}))


def write(file: Path, size: int) -> None:
    """At least `size` bytes of the same sentences again and again; a file that is there is kept."""
    if file.exists() and file.stat().st_size >= size:
        return
    block = "\n".join([*sentences(SENTENCES), ""]).encode()
    with file.open("wb") as text:
        while text.tell() < size:
            text.write(block)


if __name__ == "__main__":
    main()
