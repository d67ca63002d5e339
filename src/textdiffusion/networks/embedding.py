"""From token ids to features."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..batch import Batch
from .transformer import Linear

Pairs = tuple[tuple[int, int], ...]

AROUND: Pairs = ((-2, -1), (-1, 1), (1, 2))  # neighbours on both sides
BEFORE: Pairs = ((-1, 0), (-2, -1), (-3, -2))  # none to the right
ROWS = 1 << 14  # of each table of pairs


class TokenEmbedding(nn.Module):
    """A vector for each token, and for what pairs of tokens near it say.

    Pairs are looked up in tables of `ROWS` rows (shared by hashing where the vocabulary has more pairs than that):
    local context that costs no matrix product, so a small network need not learn to fetch it (docs/experiments.md).
    """

    def __init__(self, vocab: int, width: int, pairs: Pairs = (), dim: int = 0) -> None:
        super().__init__()
        self.vocab, self.pairs, self.rows = vocab, pairs, min(ROWS, vocab**2)
        self.tokens = nn.Embedding(vocab, width)
        nn.init.normal_(self.tokens.weight, std=0.5)
        if pairs:
            self.tables = nn.Embedding(len(pairs) * self.rows, dim)
            nn.init.normal_(self.tables.weight, std=0.5)
            self.out = Linear(len(pairs) * dim, width, bias=False)

    def forward(self, ids: Int[Tensor, "b l"], edge: int, batch: Batch) -> Float[Tensor, "b l w"]:
        """`edge` is the id that stands in for neighbours beyond the ends of an example."""
        features = self.tokens(ids)
        if not self.pairs:
            return features
        near = {offset: _neighbour(ids, offset, edge, batch) for pair in self.pairs for offset in pair}
        index = [(near[a] * self.vocab + near[b]) % self.rows + i * self.rows for i, (a, b) in enumerate(self.pairs)]
        return features + self.out(self.tables(torch.stack(index, dim=-1)).flatten(2))


def _neighbour(ids: Int[Tensor, "b l"], offset: int, edge: int, batch: Batch) -> Int[Tensor, "b l"]:
    """The id `offset` places to the right of each position; `edge` where that is padding or another example."""
    if batch.real is not None:
        ids = torch.where(batch.real, ids, edge)
    shifted = _shift(ids, offset, edge)
    if batch.segments is None:
        return shifted
    return torch.where(_shift(batch.segments, offset, -1) == batch.segments, shifted, edge)


def _shift(x: Int[Tensor, "b l"], offset: int, fill: int) -> Int[Tensor, "b l"]:
    length = x.shape[1]
    offset = max(-length, min(offset, length))
    reach = abs(offset)
    return nn.functional.pad(x, (reach, reach), value=fill)[:, reach + offset : reach + offset + length]
