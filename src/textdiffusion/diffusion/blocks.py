"""Block diffusion as a process: blocks are masked one after another from the right, tokens inside a block at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..core.batch import Batch, position_ids
from ..core.randomness import Rng
from ..core.registry import builds, check_bounds
from ..core.types import Mask, NoiseTimes, PerPosition, PositionIds, Tokens
from .absorbing import AbsorbingProcess
from .alpha_schedules import AlphaSchedule, Linear
from .codecs import TokenCodec
from .densities import low_discrepancy
from .process import ProcessConfig


@dataclass(frozen=True)
class BlockAbsorbing(ProcessConfig):
    """Tokens become masks, block by block from the right; a block is `block_size` tokens long."""

    codecs: ClassVar = (TokenCodec,)

    schedule: AlphaSchedule = Linear()
    block_size: int = 16

    def __post_init__(self) -> None:
        check_bounds(self, block_size=(1, None))


@builds(BlockAbsorbing)
class BlockProcess(nn.Module):
    """The absorbing process inside each block of `block_size` tokens (BD3-LM, section 3.1); the last may be shorter.

    A t per row [b] is the time of the whole text: at t the last fraction t of the blocks is masked, the block at the
    border partly. A t per position [b, l] is the time inside its block, as training draws it. Blocks begin at the
    start of an example, in packed rows too.
    """

    bidirectional: ClassVar[bool] = False  # predictions do not see later blocks

    def __init__(self, vocab_size: int, schedule: AlphaSchedule, block_size: int) -> None:
        super().__init__()
        self.inside, self.block_size = AbsorbingProcess(vocab_size, schedule), block_size
        self.vocab_size, self.mask, self.schedule = vocab_size, self.inside.mask, schedule

    def block_ids(self, batch: Batch) -> PositionIds:
        """The number of every position's block, from 0 in each example."""
        return position_ids(batch) // self.block_size

    def block_starts(self, batch: Batch) -> PositionIds:
        """The position in its row where the block of every position begins."""
        return torch.arange(batch.tokens.shape[1], device=batch.tokens.device) - position_ids(batch) % self.block_size

    def stratified_uniforms(self, batch: Batch, *, rng: Rng) -> PerPosition:
        """Uniforms, one for each block, stratified to reduce the variance of the gradient.

        Each block of a row receives a random one of as many equal intervals of [0, 1], and uniforms are evenly spread
        inside the intervals over the rows of the global batch.
        """
        length, starts = batch.tokens.shape[1], self.block_starts(batch)
        # Packed rows may have a block at every position; the count must not depend on the rows at hand.
        num_blocks, block_index = (
            (-(-length // self.block_size), starts // self.block_size)
            if batch.segment_ids is None
            else (length, starts)
        )
        interval = rng.fork("shares").uniform(num_blocks).argsort(-1)
        within = low_discrepancy(rng, batch.global_batch_size or len(batch.tokens))[:, None]
        return ((interval + within) / num_blocks).gather(1, block_index.expand(len(interval), -1))

    def sample_prior(self, like: Tokens, *, rng: Rng) -> Tokens:
        """All masked."""
        return self.inside.sample_prior(like, rng=rng)

    def add_noise(self, x0: Tokens, t: NoiseTimes, *, rng: Rng) -> Tokens:
        return self.inside.add_noise(x0, self._block_time(t, x0.shape[1]), rng=rng)

    def is_noisy(self, xt: Tokens) -> Mask:
        """The positions that a reverse step may change: masks."""
        return self.inside.is_noisy(xt)

    def log_likelihood(self, xt: Tokens, x0: Tokens, t: NoiseTimes) -> PerPosition:
        return self.inside.log_likelihood(xt, x0, self._block_time(t, x0.shape[1]))

    def _block_time(self, t: NoiseTimes, length: int) -> PerPosition:
        """The time inside its block at every position."""
        if t.ndim == 2:
            return t
        block_index = torch.arange(length, device=t.device) // self.block_size
        num_blocks = -(-length // self.block_size)
        return (t[:, None] * num_blocks - (num_blocks - 1 - block_index)).clamp(0.0, 1.0)
