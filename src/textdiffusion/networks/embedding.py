"""From token ids to features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from ..core.batch import Batch
from ..core.randomness import mix
from ..core.types import Hidden, PositionIds, Tokens
from .denoiser import NgramDenoiserConfig
from .layers import Linear

NgramOffsets = tuple[tuple[int, ...], ...]
"""Groups of neighbours, each as offsets from a position; 0 is the position itself."""

AROUND: NgramOffsets = ((-2, -1), (-1, 1), (1, 2), (-3, -2, -1), (-2, -1, 1), (-1, 1, 2), (1, 2, 3))  # on both sides
BEFORE: NgramOffsets = ((-1, 0), (-2, -1), (-3, -2), (-2, -1, 0), (-3, -2, -1), (-3, -2, -1, 0))  # none to the right


@dataclass(frozen=True)
class Blocks:
    """The number of each position's block, and the clean tokens, which later blocks see."""

    block_ids: PositionIds
    clean_tokens: Tokens


class TokenEmbedding(nn.Module):
    """A vector for each token, plus a linear map of the vectors of the n-grams around it.

    If more groups of tokens are possible than a table has rows, they share rows by hashing. The tables give a small
    network its local context without a matrix product, so it need not learn to fetch it (docs/experiments.md).
    """

    def __init__(
        self, vocab_size: int, width: int, ngrams: NgramDenoiserConfig, offsets: NgramOffsets, num_states: int = 0
    ) -> None:
        """`vocab_size` counts the id beyond the ends of an example; `num_states` ids occur inside one (0: all)."""
        super().__init__()
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(num_states or vocab_size, width)
        nn.init.normal_(self.tokens.weight, std=0.5)
        self.offsets = [group for group in offsets if len(group) <= ngrams.ngram_size] if ngrams.ngram_dim else []
        self.left_context = max((-offset for group in self.offsets for offset in group), default=0)
        """Tokens to the left of a position that its features depend on."""
        if self.offsets:
            self.rows = [min(ngrams.ngram_rows, vocab_size ** len(group)) for group in self.offsets]
            self.tables = nn.Embedding(sum(self.rows), ngrams.ngram_dim)
            nn.init.normal_(self.tables.weight, std=0.5)
            self.out = Linear(len(self.offsets) * ngrams.ngram_dim, width, bias=False)

    def forward(self, ids: Tokens, boundary_id: int, batch: Batch, blocks: Blocks | None = None) -> Hidden:
        """`boundary_id` stands in for neighbours beyond the ends of an example, or in later `blocks`."""
        features = self.tokens(ids)
        if not self.offsets:
            return features
        if batch.valid_mask is not None:
            ids = torch.where(batch.valid_mask, ids, boundary_id)
            if blocks is not None:
                clean_tokens = torch.where(batch.valid_mask, blocks.clean_tokens, boundary_id)
                blocks = replace(blocks, clean_tokens=clean_tokens)
        neighbours = {
            offset: _neighbour(ids, offset, boundary_id, batch.segment_ids, blocks)
            for group in self.offsets
            for offset in group
        }
        index, first = [], 0
        for group, rows in zip(self.offsets, self.rows, strict=True):
            index.append(self._row([neighbours[offset] for offset in group], rows) + first)
            first += rows
        return features + self.out(self.tables(torch.stack(index, dim=-1)).flatten(2))

    def _row(self, ids: list[Tokens], rows: int) -> Tokens:
        """The row of a group of ids: one of its own if the table has a row for every group, else by hashing."""
        number = ids[0]
        for other in ids[1:]:
            number = number * self.vocab_size + other
        return number if self.vocab_size ** len(ids) == rows else mix(number & 0xFFFFFFFF) % rows


def _neighbour(ids: Tokens, offset: int, boundary_id: int, segment_ids: Tokens | None, blocks: Blocks | None) -> Tokens:
    """The id `offset` positions to the right; `boundary_id` if that is another example's or in a later block."""
    shifted = _shift(ids, offset, boundary_id)
    if blocks is not None:
        block_ids = blocks.block_ids.expand_as(ids)
        neighbour_blocks = _shift(block_ids, offset, 0)
        clean = _shift(blocks.clean_tokens, offset, boundary_id)
        visible = torch.where(neighbour_blocks == block_ids, shifted, boundary_id)
        shifted = torch.where(neighbour_blocks < block_ids, clean, visible)
    if segment_ids is None:
        return shifted
    return torch.where(_shift(segment_ids, offset, -1) == segment_ids, shifted, boundary_id)


def _shift(x: Tokens, offset: int, fill: int) -> Tokens:
    length = x.shape[1]
    offset = max(-length, min(offset, length))
    padding = abs(offset)
    return nn.functional.pad(x, (padding, padding), value=fill)[:, padding + offset : padding + offset + length]
