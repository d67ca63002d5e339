"""The denoiser of block diffusion: a block from itself, noised, and from the clean blocks before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..diffusion.blocks import BlockProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from .attention import attention_mask
from .embedding import Blocks, NgramTables, TokenEmbedding
from .output_heads import LinearHead
from .transformer import KVCache, Transformer


class BlockDenoiser(nn.Module):
    """Logits over real tokens for every block of x_t, given the clean tokens of earlier blocks (BD3-LM, section 4).

    It has no time input: the masks of a block tell it the time. A trunk with adaptive layer norms is fed a constant.
    """

    time_independent = True
    self_conditioning = False

    def __init__(self, backbone: Transformer, process: BlockProcess, *, tables: NgramTables | None = None) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, tables)
        self.head = LinearHead(backbone.width, process.vocab_size)

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """All blocks in one pass over two copies [x_t ; x_0], where x_0 is `batch.ids`; a block sees none of its own
        or later clean tokens."""
        at = position_ids(batch)
        blocks = Blocks(at // self.process.block_size, batch.tokens)
        copies = [self.embedding(ids, self.process.mask, batch, blocks) for ids in (xt, batch.tokens)]
        mask = attention_mask("two_stream", batch, self.process.block_size)
        hidden = self.backbone(torch.cat(copies, dim=1), _clean(xt), at.repeat(1, 2), mask)
        return LazyPrediction(hidden[:, : xt.shape[1]], self.head)

    def begin(self, like: Int[Tensor, "b l"]) -> BlockCache:
        """Before the first block of the rows of `like`."""
        return BlockCache(self, Batch(like[:, :0]), [KVCache() for _ in self.backbone.blocks])


@dataclass(frozen=True)
class BlockCache:
    """The finished blocks of some rows, as keys and values; it is the denoiser of the block that comes next.

    What it says is what the whole network says of that block: a clean block never sees a later one, so nothing that is
    kept could change.
    """

    denoiser: BlockDenoiser
    seen: Batch
    past: list[KVCache]
    time_independent = True
    self_conditioning = False

    @property
    def length(self) -> int:
        """Tokens that are finished."""
        return self.seen.tokens.shape[1]

    def __call__(
        self, xt: Int[Tensor, "b n"], t: Float[Tensor, "b *n"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the next block; `batch.rows` numbers its rows among those finished."""
        assert batch.row_ids is not None, "which rows these are"
        past = [memory.select(batch.row_ids) for memory in self.past]
        return LazyPrediction(
            self._pass(xt, batch.valid_mask, self.seen.select(batch.row_ids), past), self.denoiser.head
        )

    def append(self, block: Batch) -> BlockCache:
        """With the clean `block`, or several, of every row."""
        past = [replace(memory) for memory in self.past]
        self._pass(block.tokens, block.valid_mask, self.seen, past)
        return replace(self, seen=_joined(self.seen, block.tokens, block.valid_mask), past=past)

    def _pass(
        self, x: Int[Tensor, "b n"], real: Bool[Tensor, "b n"] | None, seen: Batch, past: list[KVCache]
    ) -> Float[Tensor, "b n w"]:
        network, size, start = self.denoiser, self.denoiser.process.block_size, self.length
        whole = _joined(seen, x, real)
        at = position_ids(whole)
        first = max(0, start - network.embedding.reach)
        near = whole.slice(first, whole.tokens.shape[1])
        features = network.embedding(
            near.tokens, network.process.mask, near, Blocks(at[:, first:] // size, near.tokens)
        )
        everywhere = x.shape[1] <= size and whole.valid_mask is None
        mask = None if everywhere else attention_mask("block_causal", whole, size)
        mask = mask if mask is None else mask[:, :, start:]
        return network.backbone(features[:, start - first :], _clean(x), at[:, start:], mask, past)


def _joined(seen: Batch, x: Int[Tensor, "b n"], real: Bool[Tensor, "b n"] | None) -> Batch:
    """The rows of `seen`, longer by `x`. Either all blocks say what is real, or none."""
    if real is not None and seen.valid_mask is not None:
        real = torch.cat((seen.valid_mask, real), dim=1)
    return Batch(torch.cat((seen.tokens, x), dim=1), valid_mask=real)


def _clean(x: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    return torch.zeros(len(x), device=x.device)
