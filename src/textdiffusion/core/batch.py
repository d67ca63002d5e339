"""What one training or evaluation step sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from .types import Mask, PerRow, RowIndex, Tokens


class GivenText(NamedTuple):
    """Text that stands at the tokens [start, stop) of a row. `spaced`: the next token has the space that ends it."""

    text: str
    start: int
    stop: int
    spaced: bool = False


@dataclass(frozen=True)
class Batch:
    """Token ids of `b` rows, with what the model must know about each position."""

    tokens: Tokens
    """Clean token ids."""
    valid_mask: Mask | None = None
    """False at padding, which attention and loss leave out (None: no padding)."""
    condition_mask: Mask | None = None
    """True at clean conditioning positions, which are never noised and are preserved exactly (None: nowhere)."""
    replace_mask: Mask | None = None
    """True where the tokens are known but the model sees noise: infilling by replacement (None: nowhere)."""
    labels: RowIndex | None = None
    """The number of each row's label, 0 for no label (None: no row has one)."""
    allowed_set_ids: Tokens | None = None
    """For free positions, the row of `templates.allowed_sets` with the tokens that they may hold (None: all tokens)."""
    segment_ids: Tokens | None = None
    """Numbers of the examples that share a packed row; attention stays inside a segment (None: one per row)."""
    row_ids: RowIndex | None = None
    """Row numbers in the global batch: a row's randomness depends on them, not on the batch that it is in."""
    global_batch_size: int | None = None
    """Rows of the global batch, over which noise levels are stratified (None: the rows of this batch)."""
    num_chars: RowIndex | None = None
    """Characters that each row stands for, the denominator of bits per character (None: unknown)."""
    lost_bits: PerRow | None = None
    """Bits that each row costs beside those of its tokens, to spell what the tokenizer lost (None: nothing)."""
    given_texts: tuple[tuple[GivenText, ...], ...] = ()
    """Of templates: the text that the user gave, which no tokenizer may change."""
    template_ids: RowIndex | None = None
    """For each row the index of its template in `given_texts` (None: no row has one)."""
    text_starts: RowIndex | None = None
    """Of prompts: where the text that continues each row's prompt begins (None: rows have no prompt to leave out)."""

    @property
    def target_mask(self) -> Mask:
        """Positions that the process may noise: neither padding nor condition."""
        valid = self.valid_mask
        if valid is None:
            valid = self.tokens.new_ones(self.tokens.shape, dtype=torch.bool)
        return valid if self.condition_mask is None else valid & ~self.condition_mask

    @property
    def prompt_mask(self) -> Mask | None:
        """Positions whose tokens the user gave, clean or replaced (None: nowhere)."""
        return self.condition_mask if self.replace_mask is None else self.replace_mask

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def select(self, index: Tensor | slice) -> Batch:
        """The rows of `index` (row indices, a boolean mask or a slice)."""
        return replace(self, **{k: v[index] for k, v in vars(self).items() if isinstance(v, Tensor)})

    @property
    def layout(self) -> tuple[object, ...]:
        """Batches with equal layouts can be concatenated: their width, and which fields they have."""
        return self.tokens.shape[1], *(name for name, value in vars(self).items() if isinstance(value, Tensor))

    def slice(self, start: int, stop: int) -> Batch:
        """Positions `start` to `stop` - 1 of every row."""
        tensors = {k: v[:, start:stop] for k, v in vars(self).items() if isinstance(v, Tensor) and v.ndim == 2}
        return replace(self, **tensors)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of batches of one layout, in turn."""
    first = batches[0]
    counts = accumulate((len(batch.given_texts) for batch in batches), initial=0)
    numbered = [
        batch if batch.template_ids is None else replace(batch, template_ids=batch.template_ids + count)
        for batch, count in zip(batches, counts, strict=False)
    ]
    fields: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in numbered])
        for name, value in vars(first).items()
        if isinstance(value, Tensor)
    }
    fields["given_texts"] = tuple(text for batch in batches for text in batch.given_texts)
    return replace(first, **fields)


def position_ids(batch: Batch) -> Int[Tensor, "#b l"]:
    """Position numbers; in packed rows they count from 0 in each segment."""
    length = batch.tokens.shape[1]
    positions = torch.arange(length, device=batch.tokens.device)[None]
    if batch.segment_ids is None:
        return positions
    starts = F.pad(batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1], (1, 0))
    return positions - torch.where(starts, positions, 0).cummax(1).values
