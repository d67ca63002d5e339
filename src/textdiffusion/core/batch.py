"""What one training or evaluation step sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Token ids of `b` rows with what the model must know about each position.

    `ids` are clean tokens. `real` is False at padding: such positions are outside attention and loss (None: all real).
    `given` is True at conditioning positions: they are never noised and are preserved exactly (None: none given).
    `known` is True where the tokens are known but the model sees noise: infilling by replacement (None: nowhere).
    `labels` are the numbers of the rows' labels, 0: none (None: no row has one).
    `holds` says what free positions may hold, by rows of `templates.allowed_sets` (None: any text).
    `segments` numbers the examples that share a packed row; attention stays inside a segment (None: one example a row).
    `rows` are the row numbers in the global batch: the randomness of a row depends on them, not on the batch it is in.
    `total` is the number of rows of the global batch, over which noise levels are stratified (None: just these).
    `chars` is the number of characters each row stands for, the denominator of bits per character (None: unknown).
    """

    tokens: Int[Tensor, "b l"]
    valid_mask: Bool[Tensor, "b l"] | None = None
    condition_mask: Bool[Tensor, "b l"] | None = None
    replace_mask: Bool[Tensor, "b l"] | None = None
    labels: Int[Tensor, " b"] | None = None
    allowed_set_ids: Int[Tensor, "b l"] | None = None
    segment_ids: Int[Tensor, "b l"] | None = None
    row_ids: Int[Tensor, " b"] | None = None
    global_batch_size: int | None = None
    num_chars: Int[Tensor, " b"] | None = None

    @property
    def target_mask(self) -> Bool[Tensor, "b l"]:
        """Positions the process may corrupt: real and not given."""
        noised = (
            self.tokens.new_ones(self.tokens.shape, dtype=torch.bool) if self.valid_mask is None else self.valid_mask
        )
        return noised if self.condition_mask is None else noised & ~self.condition_mask

    @property
    def prompt_mask(self) -> Bool[Tensor, "b l"] | None:
        """The positions whose tokens are given, in whatever way (None: nowhere)."""
        return self.condition_mask if self.replace_mask is None else self.replace_mask

    def to(self, device) -> Batch:
        """The same batch on another device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def select(self, index: Tensor) -> Batch:
        """Some of the rows (row indices or a boolean mask)."""
        picked = {k: v[index] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **picked)

    def slice(self, start: int, stop: int) -> Batch:
        """The positions from `start` to before `stop` of every row."""
        cut = {k: v[:, start:stop] for k, v in vars(self).items() if isinstance(v, Tensor) and v.ndim == 2}
        return replace(self, **cut)


def position_ids(batch: Batch) -> Int[Tensor, "#b l"]:
    """Position numbers; in packed rows they count from 0 in each segment."""
    length = batch.tokens.shape[1]
    at = torch.arange(length, device=batch.tokens.device)[None]
    if batch.segment_ids is None:
        return at
    starts = F.pad(batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1], (1, 0))
    return at - torch.where(starts, at, 0).cummax(1).values
