"""Block diffusion as a process: blocks are masked one after the other from the right, inside a block at random."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch, positions
from ..core.randomness import Rng
from .absorbing import AbsorbingProcess
from .densities import stratified


class BlockProcess(nn.Module):
    """The absorbing process inside each block of `block` tokens (BD3-LM, section 3.1); a last block may be shorter.

    A t for each row [b] is the time of the whole text: at t the last share t of the blocks is masked, the block at the
    border in part. A t for each position [b, l] is the time inside its block, as training draws it. Blocks begin at the
    start of an example, in packed rows too.
    """

    two_sided: ClassVar[bool] = False  # predictions see nothing of later blocks

    def __init__(self, inside: AbsorbingProcess, block: int) -> None:
        super().__init__()
        self.inside, self.block = inside, block
        self.vocab, self.mask, self.schedule = inside.vocab, inside.mask, inside.schedule

    def numbers(self, batch: Batch) -> Int[Tensor, "#b l"]:
        """The number of every position's block, from 0 in each example."""
        return positions(batch) // self.block

    def starts(self, batch: Batch) -> Int[Tensor, "#b l"]:
        """The place in its row where the block of every position begins."""
        return torch.arange(batch.ids.shape[1], device=batch.ids.device) - positions(batch) % self.block

    def levels(self, batch: Batch, *, rng: Rng) -> Float[Tensor, "b l"]:
        """Uniforms, one for each block: evenly spread over the blocks of a row, which are dealt their shares at random,
        and inside a share over the rows of the global batch. So the gradient of a batch varies little."""
        length, starts = batch.ids.shape[1], self.starts(batch)
        # Packed rows may have a block at every position; the count must not depend on the rows at hand.
        blocks, place = (-(-length // self.block), starts // self.block) if batch.segments is None else (length, starts)
        share = rng.fork("shares").uniform(blocks).argsort(-1)
        within = stratified(rng, batch.total or len(batch.ids))[:, None]
        return ((share + within) / blocks).gather(1, place.expand(len(share), -1))

    def prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """All masked."""
        return self.inside.prior(like, rng=rng)

    def corrupt(self, x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_0."""
        return self.inside.corrupt(x0, self._inner(t, x0.shape[1]), rng=rng)

    def changing(self, xt: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """The positions whose state a step back may change: masks."""
        return self.inside.changing(xt)

    def log_likelihood(
        self, xt: Int[Tensor, "b l"], x0: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]
    ) -> Float[Tensor, "b l"]:
        """log q(x_t | x_0) in nats per position."""
        return self.inside.log_likelihood(xt, x0, self._inner(t, x0.shape[1]))

    def _inner(self, t: Float[Tensor, "b *l"], length: int) -> Float[Tensor, "b l"]:
        """The time inside its block at every position."""
        if t.ndim == 2:
            return t
        number = torch.arange(length, device=t.device) // self.block
        blocks = -(-length // self.block)
        return (t[:, None] * blocks - (blocks - 1 - number)).clamp(0.0, 1.0)
