"""Prints the exactness table as Markdown: python benchmarks/exactness_table.py [--draws 50000] [--steps 2 8 32 128].

With the ideal denoiser of a tiny language every sampler must draw from the law of the language as its steps grow.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.exact.convergence import LANGUAGE, cases

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=50_000)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 8, 32, 128])
    options = parser.parse_args()
    print(
        f"Total variation distance to the data distribution, V = {LANGUAGE.vocab_size}, L = {LANGUAGE.length}, "
        f"{options.draws:,} samples;"
    )
    print(f"exact draws would show {LANGUAGE.floor(options.draws):.4f}.\n")
    print(f"| codec / process / schedule | sampler | {' | '.join(f'{n} steps' for n in options.steps)} |")
    print(f"|---|---|{'---:|' * len(options.steps)}")
    start = time.process_time()
    for case in cases():
        row = [f"{case.distance(n, options.draws):.4f}" for n in options.steps]
        print(f"| {case.name} | {case.sampler_name} | {' | '.join(row)} |", flush=True)
    print(f"\n{time.process_time() - start:.0f} CPU-seconds.")
