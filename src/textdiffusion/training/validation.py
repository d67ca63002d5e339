"""Validation during training: the bound on held-out windows, and samples."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..config.config import Config
from ..core.randomness import Rng
from ..data.dataset import Dataset, evaluation_batches
from ..data.prepare import Corpus
from ..diffusion.model import DiffusionModel
from ..objectives.base import Likelihood
from ..samplers.base import Request
from ..samplers.masked_view import adapt_model
from .distributed import SingleProcess


@dataclass(frozen=True)
class ValidationBound:
    """Bits per character (per token if the text has no character counts) and the standard error over windows."""

    bits: float
    error: float
    windows: int


@torch.no_grad()
def validate(
    model: DiffusionModel,
    likelihood: Likelihood,
    dataset: Dataset,
    windows: int,
    batch_size: int,
    seed: int,
    world: SingleProcess,
) -> ValidationBound:
    """The bound of `model` on up to `windows` evenly spaced windows, `batch_size` at a time on each rank.

    The noise depends on `seed` alone, so two models, or one at two steps, compare fairly. If there are fewer windows,
    they repeat until there are `windows` draws: the noise of a few would hide any learning.
    """
    count = min(windows, len(dataset))
    repeats = 1 if likelihood.exact else -(-windows // count)
    rows = np.tile(np.linspace(0, len(dataset) - 1, count).round().astype(np.int64), repeats)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    nats, chars = torch.zeros(2, len(rows), dtype=torch.float64)
    rank_ids = np.arange(world.rank, -(-len(rows) // world.size) * world.size, world.size)
    is_extra = rank_ids >= len(rows)  # all ranks run the network equally often
    rank_ids = rank_ids % len(rows)
    done = 0
    for batch in evaluation_batches(dataset, batch_size, rows[rank_ids]):
        ids = torch.from_numpy(rank_ids[done : done + len(batch.tokens)])
        done += len(ids)
        # Row ids count the draws, so that noise levels are stratified over them.
        batch = replace(batch, row_ids=ids, global_batch_size=len(rows)).to(device)
        rng = Rng.of(seed, ids.to(device)).fork("validation")
        nats[ids] = likelihood(model, batch, rng=rng).cpu().double()
        if batch.lost_bits is not None:
            nats[ids] += math.log(2) * batch.lost_bits.cpu().double()
        chars[ids] = (batch.target_mask.sum(-1) if batch.num_chars is None else batch.num_chars).cpu().double()
    nats[rank_ids[is_extra]] = chars[rank_ids[is_extra]] = 0.0
    model.train(was_training)
    nats, chars = world.sum(torch.stack((nats, chars))).unflatten(1, (repeats, count)).mean(1)
    mean = nats.sum() / chars.sum()
    error = (nats - mean * chars).std() * count**0.5 / chars.sum() if count > 1 else torch.tensor(math.nan)
    return ValidationBound(float(mean) / math.log(2), float(error) / math.log(2), count)


@torch.no_grad()
def sample_texts(model: DiffusionModel, config: Config, corpus: Corpus, device: torch.device, step: int) -> list[str]:
    """`training.num_samples` samples; if the run has prompts or labels, for those of the first validation windows."""
    text, count = config.text, config.training.num_samples
    request = Request.blank(count, text.length, config.sampler.steps or text.length, device=str(device))
    if text.has_prompts or text.label:
        dataset = corpus.valid or corpus.train
        batch = dataset.windows(np.arange(count) % len(dataset))
        request = replace(request, batch=replace(batch, valid_mask=None).to(device))
    rng = Rng.of(config.training.seed, count, device).fork("samples").fork(step)
    sampler = config.sampler
    last = deque(sampler(adapt_model(sampler, model, config.training.seed), request, rng=rng), maxlen=1).pop()
    rows = zip(last.tokens.cpu().numpy(), request.batch.target_mask.cpu().numpy(), strict=True)
    return [corpus.tokenizer.decode(row[is_text] if text.has_prompts else row) for row, is_text in rows]
