"""Sampling block after block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.blocks import BlockProcess
from ..diffusion.model import DiffusionModel
from .ancestral import Ancestral, timesteps
from .base import Request, Step
from .token_state import TokenState


class BlockAncestral:
    """Ancestral sampling inside each block in turn, from left to right (BD3-LM, algorithm 2).

    Finished blocks are kept as keys and values, which changes nothing but the time it takes. The steps are shared out
    evenly over the blocks. A text longer than the windows of training is continued from the last half of a window, as
    if the text began there; so it may have any length. Given tokens are seen by their own block and by later ones.
    `calls` counts predictions; each finished block costs one pass more.
    """

    processes: ClassVar[tuple[type, ...]] = (BlockProcess,)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text; later blocks stay undecided until their turn."""
        batch, process, size = request.batch, model.process, model.process.block_size
        length, steps = batch.tokens.shape[1], request.steps
        blocks = -(-length // size)
        if batch.segment_ids is not None:
            raise UserError("Packed rows cannot be sampled in blocks; put one example in a row.")
        if steps < blocks:
            raise UserError(f"{steps} steps asked for {blocks} blocks of {size} tokens: each takes at least one.")
        batch = replace(batch, row_ids=torch.arange(len(batch.tokens), device=batch.tokens.device))
        x = torch.where(batch.target_mask, process.sample_prior(batch.tokens, rng=rng), batch.tokens)
        confidence = batch.target_mask.logical_not().float()
        yield Step(0, steps, 1.0, x, confidence, x)
        finished = model.denoiser.begin(x)
        room = model.window_length
        calls = 0.0
        for number, start in enumerate(range(0, length, size)):
            stop = min(start + size, length)
            done = steps * number // blocks
            part = replace(request, full_batch=replace(batch, tokens=x), offset=start)
            window = replace(part, batch=batch.slice(start, stop), steps=steps * (number + 1) // blocks - done)
            draws = rng.fork(number)
            stream = TokenState(model, window, rng=draws, denoiser=finished, inside=process.inside)
            made = Ancestral().run(timesteps(model.time_density, window), stream, rng=draws)
            next(made)  # nothing is revealed yet
            for step in made:
                x, confidence = x.clone(), confidence.clone()
                x[:, start:stop], confidence[:, start:stop] = step.tokens, step.confidence
                left = (blocks - 1 - number + step.t) / blocks
                yield Step(done + step.index, steps, left, x, confidence, x, calls + step.nfe)
            calls += step.nfe
            if stop == length:
                return
            if finished.length + min(stop + size, length) - start > room:  # none for this block and the next
                finished = model.denoiser.begin(x)
                start = stop - room // size // 2 * size
            if start < stop:
                finished = finished.append(replace(batch.slice(start, stop), tokens=x[:, start:stop]))
