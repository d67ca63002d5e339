"""Training speed beside a plain encoder of the same shape: python benchmarks/training_speed.py [--shape 6x384x256x32].

Ours is a step of `mdlm` as training makes it: noise, trunk in the machine's dtype, loss, clipping, AdamW. The plain
one is what a reader would write first: float32, eager, scaled-dot-product attention, GELU, cross-entropy at every
position, AdamW. Steps alternate, so that a machine that changes its speed changes both; the figure is the median ratio
of neighbouring steps. CPU-seconds are of all threads. Peak memory is of a process of its own for each.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiffusion import recipes
from textdiffusion.config.build import build_model
from textdiffusion.core.batch import Batch
from textdiffusion.core.devices import choose_dtype
from textdiffusion.core.randomness import Rng
from textdiffusion.networks.token_denoiser import MaskDenoiserConfig
from textdiffusion.training.compilation import compile_backbone
from textdiffusion.training.optimizers import Optimizers

VOCAB = 65


class PlainBlock(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, 64)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def plain(depth: int, width: int, ids: Tensor) -> Callable[[], None]:
    """A training step of the plain encoder."""
    model = nn.Sequential(
        nn.Embedding(VOCAB + 1, width), *(PlainBlock(width) for _ in range(depth)), nn.Linear(width, VOCAB)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step() -> None:
        masked = torch.where(torch.rand(ids.shape) < 0.5, VOCAB, ids)
        F.cross_entropy(model(masked).flatten(0, 1), ids.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(depth: int, width: int, ids: Tensor, compiled: bool) -> Callable[[], None]:
    """A training step of `mdlm`, without the tables of pairs, which the plain encoder does not have."""
    config = recipes.get("mdlm")()
    config = replace(
        config,
        backbone=replace(config.backbone, width=width, depth=depth),
        denoiser=MaskDenoiserConfig(),
        training=replace(config.training, optimizer="adamw"),
    )
    model = build_model(config, VOCAB)
    model.denoiser.backbone.compute_dtype, reason = choose_dtype("auto", torch.device("cpu"))
    print(f"computing in {model.denoiser.backbone.compute_dtype} ({reason})", file=sys.stderr)
    optimizers = Optimizers(model, config.training)
    rng, number = Rng.of(0, len(ids)), 0

    def backward() -> None:
        nonlocal number
        number += 1
        config.objective(model, Batch(ids), rng=rng.fork(number)).total.backward()

    if compiled:
        print(compile_backbone(model, backward), file=sys.stderr)

    def step() -> None:
        backward()
        optimizers.step(1.0)

    return step


def timed(step: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="6x384x256x32", help="blocks x width x length x rows")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--memory", choices=("plain", "ours"), help="a few steps of one, and its peak memory")
    parser.add_argument("--eager", action="store_true", help="ours without compilation")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    depth, width, length, rows = map(int, arguments.shape.split("x"))
    ids = torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))
    if arguments.memory:
        step = plain(depth, width, ids) if arguments.memory == "plain" else ours(depth, width, ids, not arguments.eager)
        for _ in range(2):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    peak = {}
    for who in ("plain", "ours"):
        child = subprocess.run([sys.executable, *sys.argv, "--memory", who], stdout=subprocess.PIPE, check=True)
        peak[who] = int(child.stdout)
    ours_step, plain_step = ours(depth, width, ids, not arguments.eager), plain(depth, width, ids)
    for step in (ours_step, plain_step):
        step()
    pairs = [(timed(ours_step), timed(plain_step)) for _ in range(arguments.steps)]
    tokens = ids.numel()
    row = {"shape": arguments.shape, "threads": torch.get_num_threads(), "compiled": not arguments.eager}
    row["ratio_wall"] = round(statistics.median(p[0] / o[0] for o, p in pairs), 2)
    row["ratio_cpu"] = round(statistics.median(p[1] / o[1] for o, p in pairs), 2)
    row["ours_tokens_per_cpu_second"] = round(tokens / statistics.median(o[1] for o, _ in pairs))
    row["plain_tokens_per_cpu_second"] = round(tokens / statistics.median(p[1] for _, p in pairs))
    row |= {f"{who}_peak_MiB": value for who, value in peak.items()}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
