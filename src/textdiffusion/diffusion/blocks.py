"""Block diffusion as a process: blocks are masked one after the other from the right, inside a block at random."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..core.randomness import Rng
from .absorbing import AbsorbingProcess
from .densities import low_discrepancy


class BlockProcess(nn.Module):
    """The absorbing process inside each block of `block` tokens (BD3-LM, section 3.1); a last block may be shorter.

    A t for each row [b] is the time of the whole text: at t the last share t of the blocks is masked, the block at the
    border in part. A t for each position [b, l] is the time inside its block, as training draws it. Blocks begin at the
    start of an example, in packed rows too.
    """

    bidirectional: ClassVar[bool] = False  # predictions see nothing of later blocks

    def __init__(self, inside: AbsorbingProcess, block: int) -> None:
        super().__init__()
        self.inside, self.block_size = inside, block
        self.vocab_size, self.mask, self.schedule = inside.vocab_size, inside.mask, inside.schedule

    def block_ids(self, batch: Batch) -> Int[Tensor, "#b l"]:
        """The number of every position's block, from 0 in each example."""
        return position_ids(batch) // self.block_size

    def block_starts(self, batch: Batch) -> Int[Tensor, "#b l"]:
        """The place in its row where the block of every position begins."""
        return torch.arange(batch.tokens.shape[1], device=batch.tokens.device) - position_ids(batch) % self.block_size

    def stratified_uniforms(self, batch: Batch, *, rng: Rng) -> Float[Tensor, "b l"]:
        """Uniforms, one for each block: evenly spread over the blocks of a row, which are dealt their shares at random,
        and inside a share over the rows of the global batch. So the gradient of a batch varies little."""
        length, starts = batch.tokens.shape[1], self.block_starts(batch)
        # Packed rows may have a block at every position; the count must not depend on the rows at hand.
        blocks, place = (
            (-(-length // self.block_size), starts // self.block_size)
            if batch.segment_ids is None
            else (length, starts)
        )
        share = rng.fork("shares").uniform(blocks).argsort(-1)
        within = low_discrepancy(rng, batch.global_batch_size or len(batch.tokens))[:, None]
        return ((share + within) / blocks).gather(1, place.expand(len(share), -1))

    def sample_prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """All masked."""
        return self.inside.sample_prior(like, rng=rng)

    def add_noise(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_0."""
        return self.inside.add_noise(x0, self._inner(t, x0.shape[1]), rng=rng)

    def is_noisy(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change: masks."""
        return self.inside.is_noisy(xt)

    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""
        return self.inside.log_likelihood(xt, x0, self._inner(t, x0.shape[1]))

    def _inner(self, t: Float[Tensor, "b *l"], length: int) -> Float[Tensor, "b l"]:
        """The time inside its block at every position."""
        if t.ndim == 2:
            return t
        number = torch.arange(length, device=t.device) // self.block_size
        blocks = -(-length // self.block_size)
        return (t[:, None] * blocks - (blocks - 1 - number)).clamp(0.0, 1.0)
