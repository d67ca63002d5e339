"""The denoiser of block diffusion: it predicts a block from its noisy tokens and the clean blocks before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..core.registry import builds
from ..core.types import Hidden, NoiseTimes, PerRow, Tokens
from ..diffusion.blocks import BlockProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from .attention import attention_mask
from .denoiser import NgramDenoiserConfig
from .embedding import AROUND, Blocks, TokenEmbedding
from .heads import LinearHead
from .kv_cache import KVCache
from .transformer import Transformer


@dataclass(frozen=True)
class BlockDenoiserConfig(NgramDenoiserConfig):
    """Every block from itself and those before it; n-gram tables do not see later blocks."""

    processes: ClassVar = (BlockProcess,)
    backbones: ClassVar = (Transformer,)


@builds(BlockDenoiserConfig)
class BlockDenoiser(nn.Module):
    """Logits of the real tokens for every block of x_t, given the clean tokens of earlier blocks (BD3-LM, section 4).

    It has no time input: the masks of a block show the time. A backbone with modulation is fed a constant.
    """

    time_independent = True
    self_conditioning = False

    def __init__(self, backbone: Transformer, process: BlockProcess, config: NgramDenoiserConfig) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        self.embedding = TokenEmbedding(process.vocab_size + 1, backbone.width, config, AROUND)
        self.head = LinearHead(backbone.width, process.vocab_size)

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """All blocks in one pass over two copies [x_t ; x_0], where x_0 is `batch.tokens`.

        No block sees the clean tokens of its own or later blocks.
        """
        positions = position_ids(batch)
        blocks = Blocks(positions // self.process.block_size, batch.tokens)
        copies = [self.embedding(ids, self.process.mask, batch, blocks) for ids in (xt, batch.tokens)]
        mask = attention_mask("two_stream", batch, self.process.block_size)
        hidden = self.backbone(torch.cat(copies, dim=1), _zero_level(xt), positions.repeat(1, 2), mask)
        return LazyPrediction(hidden[:, : xt.shape[1]], self.head)

    def begin(self, like: Tokens) -> BlockCache:
        """The cache before the first block, for as many rows as `like` has."""
        return BlockCache(self, Batch(like[:, :0]), [KVCache() for _ in self.backbone.blocks])

    def encode(self, rows: Batch, start: int, caches: list[KVCache]) -> Hidden:
        """The features of `rows` from position `start`, after the positions in `caches`, which grow."""
        block_size, positions = self.process.block_size, position_ids(rows)
        first = max(0, start - self.embedding.left_context)
        context = rows.slice(first, rows.tokens.shape[1])
        blocks = Blocks(positions[:, first:] // block_size, context.tokens)
        features = self.embedding(context.tokens, self.process.mask, context, blocks)
        sees_all = rows.tokens.shape[1] - start <= block_size and rows.valid_mask is None
        mask = None if sees_all else attention_mask("block_causal", rows, block_size)
        mask = mask if mask is None else mask[:, :, start:]
        return self.backbone(features[:, start - first :], _zero_level(rows.tokens), positions[:, start:], mask, caches)

    def predict(self, hidden: Hidden, rows: Batch, before: Float[Tensor, "b 1 w"] | None) -> Prediction:
        """The prediction from the features of the last positions of `rows`; `before` are those left of them."""
        return LazyPrediction(hidden, self.head)


@runtime_checkable
class EncodesBlocks(Protocol):
    """A denoiser of blocks, as its cache needs it."""

    def encode(self, rows: Batch, start: int, caches: list[KVCache]) -> Hidden: ...

    def predict(self, hidden: Hidden, rows: Batch, before: Float[Tensor, "b 1 w"] | None) -> Prediction: ...


@dataclass(frozen=True)
class BlockCache:
    """The finished blocks of some rows, as keys and values. It is the denoiser of the next block.

    Its predictions are those of the whole network: a clean block never sees a later one, so cached keys and values
    never change. `last` are the features of the last finished position.
    """

    denoiser: EncodesBlocks
    finished: Batch
    caches: list[KVCache]
    last: Float[Tensor, "b 1 w"] | None = None
    time_independent = True
    self_conditioning = False

    @property
    def length(self) -> int:
        """Number of finished tokens."""
        return self.finished.tokens.shape[1]

    def __call__(
        self, xt: Int[Tensor, "b n"], t: Float[Tensor, "b *n"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The distribution of the next block; `batch.row_ids` are the numbers of its rows among the finished ones."""
        assert batch.row_ids is not None, "row_ids select the rows of the cache"
        rows = _append(self.finished.select(batch.row_ids), xt, batch.valid_mask)
        hidden = self.denoiser.encode(rows, self.length, [cache.select(batch.row_ids) for cache in self.caches])
        return self.denoiser.predict(hidden, rows, None if self.last is None else self.last[batch.row_ids])

    def append(self, block: Batch) -> BlockCache:
        """A new cache with one or several clean blocks more in every row."""
        caches = [replace(cache) for cache in self.caches]
        rows = _append(self.finished, block.tokens, block.valid_mask)
        hidden = self.denoiser.encode(rows, self.length, caches)
        return replace(self, finished=rows, caches=caches, last=hidden[:, -1:])


def _append(finished: Batch, x: Int[Tensor, "b n"], valid_mask: Bool[Tensor, "b n"] | None) -> Batch:
    """The rows with `x` at the end. Either all blocks have a valid mask, or none."""
    if valid_mask is not None and finished.valid_mask is not None:
        valid_mask = torch.cat((finished.valid_mask, valid_mask), dim=1)
    return Batch(torch.cat((finished.tokens, x), dim=1), valid_mask=valid_mask)


def _zero_level(x: Int[Tensor, "b n"]) -> PerRow:
    """A noise level of 0 for every row."""
    return torch.zeros(len(x), device=x.device)
