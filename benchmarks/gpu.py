"""What a GPU computes and how fast, in one command of at most nine minutes: python benchmarks/gpu.py --out gpu.json

1. Agreement: the loss and the gradients of one training step of every recipe in float32 (without TF32), on the device
   and on the CPU, from the same weights and draws. A loss may differ by 1e-4 of itself, the gradients together by 1e-3
   of their norm; exits with 1 where they differ by more.
2. Training speed of `mdlm` in the device's dtype with 11 and 110 million parameters, compiled and not: tokens per
   second, the fraction of the peak rate of bfloat16, and peak memory. A token costs 6 operations per weight that
   multiplies matrices and 12 x depth x length x width for attention.
3. Sampling latency of the same models at batch 1 and 64, compiled and not: seconds per text batch and per step.

`--small` is the same in seconds with tiny models and without compilation, for a machine without a GPU. What would take
longer than `--minutes` is left out and named. The table is on standard output, progress on standard error.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from textdiffusion import recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.config import Config
from textdiffusion.core.batch import Batch
from textdiffusion.core.devices import choose_device, choose_dtype
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.networks.token_denoiser import MaskDenoiserConfig
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.unmasking import Unmasking
from textdiffusion.training.compilation import compile_backbone
from textdiffusion.training.optimizers import Optimizers

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3

PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "GH200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 5090": 209.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 operations per second by the makers' data sheets, in 10^12; the first name in the device's counts."""


@dataclass(frozen=True)
class Shape:
    """A model and the work it is given."""

    name: str
    width: int
    depth: int
    vocab_size: int
    length: int
    batch_size: int
    steps: int
    sampling_steps: int
    sampling_batches: tuple[int, ...]


SHAPES = (
    Shape("11 M", 384, 6, 256, 256, 256, 20, 64, (1, 64)),
    Shape("110 M", 768, 12, 16_000, 1024, 16, 10, 64, (1, 64)),
)
SMALL_SHAPES = (
    Shape("tiny", 64, 2, 32, 32, 4, 3, 4, (1, 4)),
    Shape("small", 128, 2, 64, 32, 4, 3, 4, (1, 4)),
)


def agreement(device: torch.device) -> Iterator[dict[str, Any]]:
    """The difference between device and CPU in one step of every recipe."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name in recipes.names():
        config = recipes.get(name)()
        config = replace(config, backbone=replace(config.backbone, width=64, depth=2))
        torch.manual_seed(0)
        model = build_model(config, 32)
        with torch.no_grad():
            for parameter in model.denoiser.parameters():  # heads begin at zero, which would hide much
                parameter += 0.05 * torch.randn_like(parameter)
        tokens = torch.randint(32, (8, 32), generator=torch.Generator().manual_seed(1))
        expected, gradients = _step(config, model, tokens, torch.device("cpu"))
        loss, others = _step(config, deepcopy(model), tokens, device)
        gap = torch.stack([(one - other).norm() for one, other in zip(gradients, others, strict=True)]).norm()
        row = {
            "recipe": name,
            "loss": expected,
            "loss_difference": abs(loss - expected) / abs(expected),
            "gradient_difference": float(gap / torch.stack([gradient.norm() for gradient in gradients]).norm()),
        }
        agrees = row["loss_difference"] <= LOSS_TOLERANCE and row["gradient_difference"] <= GRADIENT_TOLERANCE
        yield row | {"agrees": agrees}


def _step(
    config: Config, model: DiffusionModel, tokens: torch.Tensor, device: torch.device
) -> tuple[float, list[torch.Tensor]]:
    """The loss and the gradients of one step, on the CPU."""
    model = model.to(device)
    model.zero_grad()
    loss = config.objective(model, Batch(tokens.to(device)), rng=Rng.of(0, len(tokens), device)).total
    loss.backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    return float(loss), [torch.zeros_like(p).cpu() if p.grad is None else p.grad.cpu().clone() for p in parameters]


def mdlm(shape: Shape, device: torch.device) -> tuple[Config, DiffusionModel]:
    """`mdlm` in this shape, without tables of n-grams, in the dtype that training would choose."""
    config = recipes.get("mdlm")()
    config = replace(
        config,
        text=replace(config.text, length=shape.length),
        backbone=replace(config.backbone, width=shape.width, depth=shape.depth),
        denoiser=MaskDenoiserConfig(),
        training=replace(config.training, optimizer="adamw"),
    )
    torch.manual_seed(0)
    model = build_model(config, shape.vocab_size).to(device)
    model.denoiser.backbone.compute_dtype = choose_dtype("auto", device)[0]
    return config, model


def training(shape: Shape, device: torch.device, compiled: bool, peak: float | None) -> dict[str, Any]:
    """Speed and memory of training steps."""
    config, model = mdlm(shape, device)
    optimizers = Optimizers(model, config.training)
    tokens = torch.randint(shape.vocab_size, (shape.batch_size, shape.length)).to(device)
    rng = Rng.of(0, shape.batch_size, device)

    def backward(number: int = 0) -> None:
        config.objective(model, Batch(tokens), rng=rng.fork(number)).total.backward()

    note = compile_backbone(model, backward) if compiled else ""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for number in range(shape.steps + 2):
        _wait(device)
        start = time.perf_counter()
        backward(number)
        optimizers.step(1.0)
        model.after_step()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    rate = tokens.numel() / median(seconds[2:])
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    operations = 6.0 * weights + 12.0 * shape.depth * shape.length * shape.width
    return {
        "model": shape.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(model.denoiser.backbone.compute_dtype).removeprefix("torch."),
        "compiled": compiled,
        "tokens_per_second": round(rate),
        "peak_fraction": None if peak is None else round(rate * operations / (peak * 1e12), 3),
        "memory_GiB": round(_peak_memory(device) / 2**30, 2),
        "note": note,
    }


def sampling(shape: Shape, device: torch.device, compiled: bool) -> Iterator[dict[str, Any]]:
    """Latency of writing one batch of texts."""
    config, model = mdlm(shape, device)
    model.eval().requires_grad_(False)
    sampler = config.sampler
    assert isinstance(sampler, Unmasking)
    for batch_size in shape.sampling_batches:
        note = ""

        def write(steps: int = shape.sampling_steps, rows: int = batch_size) -> None:
            request = Request(Batch(torch.zeros(rows, shape.length, dtype=torch.long, device=device)), steps)
            with torch.no_grad():
                for _ in sampler(model, request, rng=Rng.of(0, rows, device)):
                    pass
            _wait(device)

        note = compile_backbone(model, lambda: write(2)) if compiled else ""
        write(2)
        start = time.perf_counter()
        write()
        seconds = time.perf_counter() - start
        yield {
            "model": shape.name,
            "batch": batch_size,
            "compiled": compiled,
            "steps": shape.sampling_steps,
            "seconds": round(seconds, 4),
            "ms_per_step": round(1e3 * seconds / shape.sampling_steps, 3),
            "note": note,
        }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # of the process so far


def peak_of(name: str) -> float | None:
    """The peak rate of a device by its name, in 10^12 operations per second (None: not in the table)."""
    return next((peak for key, peak in PEAKS.items() if key in name), None)


def measure(arguments: argparse.Namespace, device: torch.device, name: str) -> dict[str, Any]:
    """All rows, and the names of those that there was no time for."""
    deadline = time.monotonic() + 60.0 * arguments.minutes
    peak = arguments.peak or peak_of(name)
    results: dict[str, Any] = {"device": name, "torch": torch.__version__, "peak": peak}
    results |= {"agreement": [], "training": [], "sampling": [], "left_out": []}
    for row in agreement(device):
        results["agreement"].append(row)
        _say(f"agreement: {row['recipe']}, {'yes' if row['agrees'] else 'NO'}")
    modes = (False,) if arguments.small else (False, True)
    for compiled, shape in product(modes, SMALL_SHAPES if arguments.small else SHAPES):
        case = f"{shape.name}{', compiled' if compiled else ''}"
        if time.monotonic() > deadline:
            results["left_out"].append(case)
            continue
        try:
            results["training"].append(training(shape, device, compiled, peak))
            for row in sampling(shape, device, compiled):
                results["sampling"].append(row)
        except torch.OutOfMemoryError:
            results["left_out"].append(f"{case} (out of memory)")
        _say(case)
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; notes are only in the JSON."""
    columns = [key for key in rows[0] if key != "note"]
    lines = [columns, ["---"] * len(columns), *([_cell(row[key]) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints the tables; exits with 1 where device and CPU disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny models, no compilation; runs anywhere")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak", type=float, default=0.0, help="dense bfloat16 rate, 10^12 operations per second")
    parser.add_argument("--minutes", type=float, default=7.0, help="begin nothing after this many minutes")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if device.type == "cpu" and not arguments.small:
        parser.error("there is no GPU here; --small runs on the CPU")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    results = measure(arguments, device, name)
    for part in ("agreement", "training", "sampling"):
        if results[part]:
            print(f"{part}\n\n{table(results[part])}")
    if results["left_out"]:
        print(f"Left out: {', '.join(results['left_out'])}")
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(row["agrees"] for row in results["agreement"]))


if __name__ == "__main__":
    main()
