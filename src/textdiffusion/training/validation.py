"""The bound on held-out windows, while training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..core.randomness import Rng
from ..data.dataset import Dataset, evaluation_batches
from ..diffusion.model import DiffusionModel
from .distributed import SingleProcess


@dataclass(frozen=True)
class ValidationBound:
    """Bits per character, its standard error over windows, and their number."""

    bits: float
    error: float
    windows: int


@torch.no_grad()
def validate(
    model: DiffusionModel, likelihood: Any, dataset: Dataset, windows: int, rows: int, seed: int, world: SingleProcess
) -> ValidationBound:
    """The likelihood bound of `model` on up to `windows` windows, evenly spread, `rows` at a time on each rank.

    The noise is the same at every call with the same seed, so that two models, or one at two times, compare fairly.
    A text of fewer windows is repeated until there are as many draws: the noise of a few would outweigh any learning.
    """
    count = min(windows, len(dataset))
    copies = 1 if likelihood.exact else -(-windows // count)
    chosen = np.tile(np.linspace(0, len(dataset) - 1, count).round().astype(np.int64), copies)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    nats, chars = torch.zeros(2, len(chosen), dtype=torch.float64)
    share = np.arange(len(chosen))[world.rank :: world.size]
    done = 0
    for batch in evaluation_batches(dataset, rows, chosen[share]):
        here = torch.from_numpy(share[done : done + len(batch.tokens)])
        done += len(here)
        # Numbered among the chosen, so that noise levels are stratified over them.
        batch = replace(batch, row_ids=here, global_batch_size=len(chosen)).to(device)
        rng = Rng.of(seed, here.to(device)).fork("validation")
        nats[here] = likelihood(model, batch, rng=rng).cpu().double()
        chars[here] = (batch.target_mask.sum(-1) if batch.num_chars is None else batch.num_chars).cpu().double()
    model.train(was_training)
    nats, chars = world.sum(torch.stack((nats, chars))).unflatten(1, (copies, count)).mean(1)
    mean = nats.sum() / chars.sum()
    error = (nats - mean * chars).std() * count**0.5 / chars.sum() if count > 1 else torch.tensor(math.nan)
    return ValidationBound(float(mean) / math.log(2), float(error) / math.log(2), count)
