"""Sampling block after block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.blocks import BlockProcess
from ..diffusion.model import DiffusionModel
from .ancestral import Ancestral, timesteps
from .base import Request, Sampler, Step
from .token_state import TokenState
from .unmasking import Unmasking

BlockSteps = Callable[[TokenState, Request, Rng], Iterator[Step]]
"""The steps inside one block, from its masks to its tokens."""


def sample_in_blocks(model: DiffusionModel, request: Request, block_steps: BlockSteps, *, rng: Rng) -> Iterator[Step]:
    """Steps from all masks to text, one block after the other from left to right (BD3-LM, algorithm 2).

    The keys and values of finished blocks are cached, which changes only the speed; blocks at the start that are given
    in all rows take one pass together and no step. The steps are split evenly over the other blocks. A text longer than
    `model.window_length` continues from the last half of a window as if it began there. Raises UserError for packed
    rows and for fewer steps than blocks.
    """
    batch, process, block_size = request.batch, model.process, model.process.block_size
    length, steps = batch.tokens.shape[1], request.steps
    free = batch.target_mask.any(0).nonzero()
    first_block = int(free[0]) // block_size if len(free) else 0
    num_blocks = -(-length // block_size) - first_block
    if batch.segment_ids is not None:
        raise UserError("Packed rows cannot be sampled in blocks; put one example in each row.")
    if steps < num_blocks:
        blocks = f"{num_blocks} blocks of {block_size} tokens"
        raise UserError(f"{steps} steps for {blocks}: each block takes at least one step.")
    batch = replace(batch, row_ids=torch.arange(len(batch.tokens), device=batch.tokens.device))
    x = torch.where(batch.target_mask, process.sample_prior(batch.tokens, rng=rng), batch.tokens)
    confidence = batch.target_mask.logical_not().float()
    yield Step(0, steps, 1.0, x, confidence, x)
    max_tokens, nfe, first = model.window_length, 0.0, first_block * block_size
    half_window = max_tokens // block_size // 2 * block_size
    cache = model.denoiser.begin(x)
    if first:
        start = 0 if min(first + block_size, length) <= max_tokens else first - half_window
        cache = cache.append(replace(batch.slice(start, first), tokens=x[:, start:first])) if start < first else cache
    for block, start in enumerate(range(first, length, block_size)):
        stop = min(start + block_size, length)
        first_step, end_step = (steps * n // num_blocks for n in (block, block + 1))
        full_batch, block_rng = replace(batch, tokens=x), rng.fork(first_block + block)
        block_request = Request(
            batch.slice(start, stop), end_step - first_step, request.guides, full_batch, offset=start
        )
        state = TokenState(model, block_request, rng=block_rng, denoiser=cache, process=process.inside)
        stepping = block_steps(state, block_request, block_rng)
        next(stepping)  # step 0 has revealed nothing yet
        for step in stepping:
            x, confidence = x.clone(), confidence.clone()
            x[:, start:stop], confidence[:, start:stop] = step.tokens, step.confidence
            t = (num_blocks - 1 - block + step.t) / num_blocks
            yield Step(first_step + step.index, steps, t, x, confidence, x, nfe + step.nfe)
        nfe += step.nfe
        if stop == length:
            return
        if cache.length + min(stop + block_size, length) - start > max_tokens:  # too long for one more block
            cache = model.denoiser.begin(x)
            start = stop - half_window
        if start < stop:
            cache = cache.append(replace(batch.slice(start, stop), tokens=x[:, start:stop]))


@dataclass(frozen=True, kw_only=True)
class BlockAncestral(Sampler):
    """Ancestral sampling of one block after the other, from left to right (BD3-LM, algorithm 2).

    For block diffusion models only. Samples the data distribution in the limit of many steps per block, if the denoiser
    is ideal. The steps are those of the whole text, split evenly over the blocks (0: one per token). The keys and
    values of finished blocks are cached, which changes only the speed. A text longer than the training window continues
    from the last half of a window as if it began there, so it may have any length. A conditioning token is visible to
    its own block and later ones. `nfe` counts predictions; each finished block costs one more pass.
    """

    processes: ClassVar[tuple[type, ...]] = (BlockProcess,)
    min_steps: ClassVar[int] = 0

    steps: int = 0

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text. Raises UserError for packed rows and for fewer steps than blocks."""

        def block_steps(state: TokenState, block: Request, rng: Rng) -> Iterator[Step]:
            return Ancestral().run(timesteps(model.time_density, block), state, rng=rng)

        return sample_in_blocks(model, request, block_steps, rng=rng)


@dataclass(frozen=True, kw_only=True)
class BlockUnmasking(Unmasking):
    """`unmasking` inside one block after the other, from left to right (SDAR, Fast-dLLM v2).

    For block diffusion models only. The steps are those of the whole text, as in `block_ancestral`; the other settings
    are those of `unmasking` inside a block, so `block_size` gives blocks smaller parts in turn, and with a `threshold`
    blocks need fewer calls than steps.
    """

    processes = (BlockProcess,)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text. Raises UserError for packed rows and for fewer steps than blocks."""
        return sample_in_blocks(model, request, lambda state, _, rng: self.run(state, rng=rng), rng=rng)
