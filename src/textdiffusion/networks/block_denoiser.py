"""The denoiser of block diffusion: a block from itself, noised, and from the clean blocks before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch, positions
from ..diffusion.blocks import BlockProcess
from ..diffusion.prediction import HiddenPrediction, Prediction
from .attention import attention_mask
from .embedding import Blocks, Tables, TokenEmbedding
from .output_heads import LinearHead
from .transformer import Memory, Transformer


class BlockDenoiser(nn.Module):
    """Logits over real tokens for every block of x_t, given the clean tokens of earlier blocks (BD3-LM, section 4).

    It has no time input: the masks of a block tell it the time. A trunk with adaptive layer norms is fed a constant.
    """

    time_free = True
    self_conditioning = False

    def __init__(self, trunk: Transformer, process: BlockProcess, *, tables: Tables | None = None) -> None:
        super().__init__()
        self.trunk, self.process = trunk, process
        self.embedding = TokenEmbedding(process.vocab + 1, trunk.width, tables)
        self.head = LinearHead(trunk.width, process.vocab)

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """All blocks in one pass over two copies [x_t ; x_0], where x_0 is `batch.ids`; a block sees none of its own
        or later clean tokens."""
        at = positions(batch)
        blocks = Blocks(at // self.process.block, batch.ids)
        copies = [self.embedding(ids, self.process.mask, batch, blocks) for ids in (xt, batch.ids)]
        mask = attention_mask("two_stream", batch, self.process.block)
        hidden = self.trunk(torch.cat(copies, dim=1), _clean(xt), at.repeat(1, 2), mask)
        return HiddenPrediction(hidden[:, : xt.shape[1]], self.head)

    def begin(self, like: Int[Tensor, "b l"]) -> Finished:
        """Before the first block of the rows of `like`."""
        return Finished(self, Batch(like[:, :0]), [Memory() for _ in self.trunk.blocks])


@dataclass(frozen=True)
class Finished:
    """The finished blocks of some rows, as keys and values; it is the denoiser of the block that comes next.

    What it says is what the whole network says of that block: a clean block never sees a later one, so nothing that is
    kept could change.
    """

    denoiser: BlockDenoiser
    seen: Batch
    past: list[Memory]
    time_free = True
    self_conditioning = False

    @property
    def length(self) -> int:
        """Tokens that are finished."""
        return self.seen.ids.shape[1]

    def __call__(
        self, xt: Int[Tensor, "b n"], t: Float[Tensor, "b *n"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the next block; `batch.rows` numbers its rows among those finished."""
        assert batch.rows is not None, "which rows these are"
        past = [memory.select(batch.rows) for memory in self.past]
        return HiddenPrediction(self._pass(xt, batch.real, self.seen.select(batch.rows), past), self.denoiser.head)

    def extended(self, block: Batch) -> Finished:
        """With the clean `block`, or several, of every row."""
        past = [replace(memory) for memory in self.past]
        self._pass(block.ids, block.real, self.seen, past)
        return replace(self, seen=_joined(self.seen, block.ids, block.real), past=past)

    def _pass(
        self, x: Int[Tensor, "b n"], real: Bool[Tensor, "b n"] | None, seen: Batch, past: list[Memory]
    ) -> Float[Tensor, "b n w"]:
        network, size, start = self.denoiser, self.denoiser.process.block, self.length
        whole = _joined(seen, x, real)
        at = positions(whole)
        first = max(0, start - network.embedding.reach)
        near = whole.between(first, whole.ids.shape[1])
        features = network.embedding(near.ids, network.process.mask, near, Blocks(at[:, first:] // size, near.ids))
        everywhere = x.shape[1] <= size and whole.real is None
        mask = None if everywhere else attention_mask("block_causal", whole, size)
        mask = mask if mask is None else mask[:, :, start:]
        return network.trunk(features[:, start - first :], _clean(x), at[:, start:], mask, past)


def _joined(seen: Batch, x: Int[Tensor, "b n"], real: Bool[Tensor, "b n"] | None) -> Batch:
    """The rows of `seen`, longer by `x`. Either all blocks say what is real, or none."""
    if real is not None and seen.real is not None:
        real = torch.cat((seen.real, real), dim=1)
    return Batch(torch.cat((seen.ids, x), dim=1), real=real)


def _clean(x: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    return torch.zeros(len(x), device=x.device)
