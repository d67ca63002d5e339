"""From token ids to features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import mix
from .transformer import Linear

NgramOffsets = tuple[tuple[int, ...], ...]

AROUND: NgramOffsets = ((-2, -1), (-1, 1), (1, 2), (-3, -2, -1), (-2, -1, 1), (-1, 1, 2), (1, 2, 3))  # on both sides
BEFORE: NgramOffsets = ((-1, 0), (-2, -1), (-3, -2), (-2, -1, 0), (-3, -2, -1), (-3, -2, -1, 0))  # none to the right


@dataclass(frozen=True)
class NgramTables:
    """Which groups of neighbours are looked up: of at most `size` tokens, in tables of at most `rows` rows of `dim`."""

    offsets: NgramOffsets
    dim: int
    size: int
    rows: int


@dataclass(frozen=True)
class Blocks:
    """The number of every position's block, and the clean ids that are seen of earlier ones."""

    numbers: Int[Tensor, "#b l"]
    clean: Int[Tensor, "b l"]


class TokenEmbedding(nn.Module):
    """A vector for each token, and for what small groups of tokens near it say.

    `tables` says which. A table is shared by hashing where more groups are possible than it has rows: local context
    that costs no matrix product, so a small network need not learn to fetch it (docs/experiments.md).
    """

    def __init__(
        self, vocab_size: int, width: int, tables: NgramTables | None = None, *, states: int | None = None
    ) -> None:
        """`vocab` counts the id beyond the ends of an example; of these only `states` occur inside (None: all)."""
        super().__init__()
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(states or vocab_size, width)
        nn.init.normal_(self.tokens.weight, std=0.5)
        self.contexts = [c for c in tables.offsets if len(c) <= tables.size] if tables else []
        self.reach = max((-offset for context in self.contexts for offset in context), default=0)  # to the left
        if tables:
            self.rows = [min(tables.rows, vocab_size ** len(context)) for context in self.contexts]
            self.tables = nn.Embedding(sum(self.rows), tables.dim)
            nn.init.normal_(self.tables.weight, std=0.5)
            self.out = Linear(len(self.contexts) * tables.dim, width, bias=False)

    def forward(
        self, ids: Int[Tensor, "b l"], boundary_id: int, batch: Batch, blocks: Blocks | None = None
    ) -> Float[Tensor, "b l w"]:
        """`edge` is the id that stands in for neighbours beyond the ends of an example, or in later `blocks`."""
        features = self.tokens(ids)
        if not self.contexts:
            return features
        if batch.valid_mask is not None:
            ids = torch.where(batch.valid_mask, ids, boundary_id)
            blocks = blocks and replace(blocks, clean=torch.where(batch.valid_mask, blocks.clean, boundary_id))
        near = {
            o: _neighbour(ids, o, boundary_id, batch.segment_ids, blocks) for offsets in self.contexts for o in offsets
        }
        index, first = [], 0
        for offsets, rows in zip(self.contexts, self.rows, strict=True):
            index.append(self._group([near[o] for o in offsets], rows) + first)
            first += rows
        return features + self.out(self.tables(torch.stack(index, dim=-1)).flatten(2))

    def _group(self, ids: list[Int[Tensor, "b l"]], rows: int) -> Int[Tensor, "b l"]:
        """The row of a group of ids: its own where all groups fit the table, else by hashing."""
        number = ids[0]
        for other in ids[1:]:
            number = number * self.vocab_size + other
        return number if self.vocab_size ** len(ids) == rows else mix(number & 0xFFFFFFFF) % rows


def _neighbour(
    ids: Int[Tensor, "b l"], offset: int, edge: int, segments: Int[Tensor, "b l"] | None, blocks: Blocks | None
) -> Int[Tensor, "b l"]:
    """The id `offset` places to the right of each position; `edge` where that is another example or hidden."""
    shifted = _shift(ids, offset, edge)
    if blocks is not None:
        own = blocks.numbers.expand_as(ids)
        there = _shift(own, offset, 0)
        clean = _shift(blocks.clean, offset, edge)
        shifted = torch.where(there < own, clean, torch.where(there == own, shifted, edge))
    if segments is None:
        return shifted
    return torch.where(_shift(segments, offset, -1) == segments, shifted, edge)


def _shift(x: Int[Tensor, "b l"], offset: int, fill: int) -> Int[Tensor, "b l"]:
    length = x.shape[1]
    offset = max(-length, min(offset, length))
    reach = abs(offset)
    return nn.functional.pad(x, (reach, reach), value=fill)[:, reach + offset : reach + offset + length]
