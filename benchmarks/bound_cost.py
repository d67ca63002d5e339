"""What the bits per character of a model of about 10 M parameters cost: CPU-seconds and wall time to an error of 0.01.

    python benchmarks/bound_cost.py mdlm --data FILE --out FOLDER --threads 2
    python benchmarks/bound_cost.py cdcd --data FILE --out FOLDER --threads 2

Trains RECIPE at width 384 and depth 6 for a moment on 90 % of the text (where a network knows nothing, nothing varies),
then measures it on the first --characters of the rest, in windows of 256, until the error of the draws is below
--target. The budget is that of a 2-core machine: 2 minutes for masks, 5 for Gaussian noise, training apart. Prints one
JSON line.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

from training import arguments, trained

from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.heldout import held_out
from textdiffusion.inference.api import TextDiffusion
from textdiffusion.scoring.likelihood import bits_per_character

SIZE = ("backbone.width=384", "backbone.depth=6", "text.length=256", "text.mask=none")


def main() -> None:
    """One model, one line."""
    parser = arguments(__doc__, 120)
    parser.add_argument("--characters", type=int, default=100_000)
    parser.add_argument("--target", type=float, default=0.01)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    row = trained(
        options.recipe,
        {"data": options.data, "valid_fraction": 0.0, "test_fraction": 0.1},
        cpu_seconds=options.cpu_seconds,
        out=options.out,
        settings=[*SIZE, *options.set],
        threads=options.threads,
        seed=options.seed,
    )
    model = TextDiffusion.from_pretrained(str(options.out), dtype=options.dtype)
    text = held_out(model, default_cache())
    text = replace(text, rows=text.rows[: -(-options.characters // model.config.text.length)])
    cpu, wall = time.process_time(), time.perf_counter()
    estimate = bits_per_character(model.model, text, model.likelihood, target_error=options.target, seed=options.seed)
    row |= {
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "characters": estimate.characters,
        "bits": round(estimate.bits, 4),
        "error": round(estimate.monte_carlo_error, 4),
        "draws": estimate.draws,
        "threads": options.threads,
        "dtype": estimate.protocol["dtype"],
        "bound_cpu_seconds": round(time.process_time() - cpu, 1),
        "bound_wall_seconds": round(time.perf_counter() - wall, 1),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
