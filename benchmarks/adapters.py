"""Memory and speed of training a language model on one CPU: all weights or an adapter, with checkpointing or not.

python benchmarks/adapters.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

from textdiffusion import recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.training.optimizers import Optimizers

SIZE = ["backbone.width=768", "backbone.depth=12"]
VOCAB, ROWS, LENGTH, STEPS = 32_000, 2, 128, 3
SETTINGS = {
    "all weights": [],
    "all weights, checkpointing": ["backbone.gradient_checkpointing=true"],
    "adapter of rank 16": ["backbone.lora_rank=16"],
    "adapter of rank 16, checkpointing": ["backbone.lora_rank=16", "backbone.gradient_checkpointing=true"],
}


def measure(name: str) -> None:
    """Prints a row of the table: parameters that learn, memory at the peak, and tokens per CPU-second."""
    config = apply_overrides(recipes.get("adapted")(), [*SIZE, *SETTINGS[name]])
    torch.manual_seed(0)
    model = build_model(config, VOCAB).train()
    optimizers = Optimizers(model, config.training)
    batch = Batch(torch.randint(VOCAB, (ROWS, LENGTH)))
    start = time.process_time()
    for step in range(STEPS):
        config.objective(model, batch, rng=Rng.of(step, ROWS)).total.backward()
        optimizers.step(1.0)
        optimizers.zero_grad()
    seconds = time.process_time() - start
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    speed = STEPS * ROWS * LENGTH / seconds
    print(f"| {name} | {total / 1e6:.0f} M | {learned / 1e6:.1f} M | {peak:,.0f} MiB | {speed:.0f} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        print(
            "| training | parameters | that learn | memory at the peak | tokens per CPU-second |\n|---|---|---|---|---|"
        )
        for setting in SETTINGS:
            subprocess.run([sys.executable, __file__, setting], check=True)
