"""Records what every recipe and sampler computes on a tiny run, to compare two versions of the code value by value.

    python benchmarks/unchanged.py record old.json        in the one version
    python benchmarks/unchanged.py record new.json        in the other, on the same machine
    python benchmarks/unchanged.py compare old.json new.json

Recorded in float32 on one thread: the losses, gradient norms and validation bounds of every recipe and variant, the
score of a text, and for the default variants the tokens of every sampler, an infilling and a sample under a guide.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.training.tiny import tiny
from textdiffusion import TextDiffusion, recipes
from textdiffusion.core.errors import UserError
from textdiffusion.training.run import train

TEMPLATE, TEXT = "1 and [MASK:3]ake", "3 and 4 make 7."


def record(folder: Path) -> dict[str, Any]:
    """Everything that is compared, by recipe and variant."""
    results = {}
    for name in recipes.names():
        for variant in recipes.variants(name):
            default = variant == "default"
            config = tiny(f"{name}/{variant}", folder, steps=20 if default else 3, eval_every=10, seed=3)
            config = replace(config, text=tiny(f"{name}/default", folder).text)
            run, values = _train(config, folder / f"{name}-{variant}", folder)
            estimates = run.score([TEXT], draws=4, seed=5)
            values["score"] = [[estimate.bits, estimate.monte_carlo_error] for estimate in estimates]
            values["samples"] = _samples(run) if default else {}
            results[f"{name}/{variant}"] = values
        masked = tiny(f"{name}/default", folder, mask="random", steps=6, eval_every=6, seed=4)
        run, results[f"{name}/mask"] = _train(masked, folder / f"{name}-mask", folder)
        results[f"{name}/mask"]["samples"] = {
            kind: _texts(run, kind, sampler.steps, template=TEMPLATE) for kind, sampler in run.samplers().items()
        }
    return results


def _train(config: Any, out: Path, folder: Path) -> tuple[TextDiffusion, dict[str, Any]]:
    train(config, out, cache=folder / "cache", console=Console(quiet=True), device="cpu")
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [event for event in events if event["event"] == "logged"]
    return TextDiffusion.from_pretrained(out, device="cpu"), {
        "losses": [[e["step"], e["loss"], e["grad_norm"], *e["parts"].values()] for e in logged],
        "bounds": [[e["step"], e["bits"]] for e in events if e["event"] == "validated"],
    }


def _samples(run: TextDiffusion) -> dict[str, Any]:
    samples: dict[str, Any] = {}
    for kind, sampler in run.samplers().items():
        samples[kind] = {"infilled": _texts(run, kind, sampler.steps, template=TEMPLATE)}
        samples[kind]["guided"] = _texts(run, kind, sampler.steps, guides=["without:text=make"], top_k=5)
        for temperature in (1.0, 0.7):
            steps = 6 if sampler.steps else None
            options = {"steps": steps, "seed": 7, "temperature": temperature, "sampler": kind}
            *_, last = run.stream(batch=run.empty_batch(2, 12), **options)
            samples[kind][str(temperature)] = last.tokens.tolist()
    return samples


def _texts(run: TextDiffusion, kind: str, steps: int, template: str = "", **options: Any) -> list[str] | str:
    options |= {"num": 2, "steps": 5 if steps else None, "seed": 9, "sampler": kind}
    try:
        return run.infill(template, **options) if template else run.generate(length=12, **options)
    except UserError as error:  # some samplers refuse some requests, and should go on doing so
        return type(error).__name__


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text of nested JSON values, with its path."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, f"{path}/{key}")
    else:
        yield path, value


def main(command: str, *paths: str) -> None:
    """Runs `record` or `compare`; exits with 1 if anything differs."""
    if command == "record":
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            Path(paths[0]).write_text(json.dumps(record(Path(folder)), indent=1) + "\n", encoding="utf-8")
        return
    old, new = (dict(leaves(json.loads(Path(path).read_text(encoding="utf-8")))) for path in paths)
    different = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    print(f"{len(old.keys() | new.keys())} values compared, {len(different)} differ")
    for path in different[:20]:
        print(f"{path}: {old.get(path)} {new.get(path)}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main(*sys.argv[1:])
