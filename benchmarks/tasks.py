"""How many questions of a task a recipe answers right after a budget of CPU-seconds.

    python benchmarks/tasks.py mdlm --data sudoku:easy:200000 --cpu-seconds 3600 --out FOLDER
        [--also sudoku:medium:500 sudoku:hard:500] [--num 500] [--steps N] [--temperature T] [--weights ema]
        [--set PATH=VALUE ...]

Measures on the test part, none of whose questions was trained on, and on other levels or seeds (`--also`), with the
averaged and the raw weights. Prints one JSON line.
"""

from __future__ import annotations

import json
import time

from training import arguments, trained_as

from textdiffusion.core.errors import UserError
from textdiffusion.data.builtin.tasks import parse_task
from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.tasks import solve_task
from textdiffusion.inference.api import TextDiffusion


def main() -> None:
    """One run, one line."""
    parser = arguments(__doc__, 3600)
    parser.add_argument("--also", nargs="*", default=[], metavar="TASK:LEVEL:SIZE:SEED")
    parser.add_argument("--num", type=int, default=500, help="questions of the test part")
    parser.add_argument("--steps", type=int, help="of the sampler (the recipe's own)")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--weights", nargs="*", choices=("ema", "raw"), default=("ema", "raw"))
    given = parser.parse_args()
    task = parse_task(given.data)
    if task is None:
        raise UserError(f"{given.data} is no task.")
    text = {"data": given.data, **task.text_settings(), "valid_fraction": 0.0, "test_fraction": 0.05}
    row = trained_as(given, text)
    for weights in given.weights:
        model = TextDiffusion.from_pretrained(given.out, weights=weights)
        for data in ("", *given.also):
            start = time.process_time()
            result = solve_task(
                model,
                default_cache(),
                data,
                0 if data else given.num,
                steps=given.steps,
                temperature=given.temperature,
            )
            row[f"{weights} {data or given.data}"] = {
                "solved": result.accuracy,
                "error": round(result.error, 4),
                "questions": len(result.answers),
                "cpu_seconds": round(time.process_time() - start, 1),
                "example": result.answers[0],
            }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
