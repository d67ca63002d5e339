"""Several batches as one, where they may share network calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch


def shape(batch: Batch) -> tuple[object, ...]:
    """What two batches must have in common to be joined: the length, and which tensors they have."""
    return (batch.tokens.shape[1], *(name for name, value in vars(batch).items() if isinstance(value, Tensor)))


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of all batches in turn. They must have the same `shape`; row numbers are kept, so they may repeat."""
    first, given = batches[0], []
    if len(batches) == 1:
        return first
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name, value in vars(first).items()
        if isinstance(value, Tensor)
    }
    if first.template_ids is not None:
        template_ids = []
        for batch in batches:
            assert batch.template_ids is not None
            template_ids.append(batch.template_ids + len(given))
            given += batch.given_texts
        tensors["template_ids"] = torch.cat(template_ids)
    return replace(first, given_texts=tuple(given), **tensors)
