"""Objectives: what training minimises, one file per loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from ..batch import Batch
    from ..model import Model
    from ..randomness import Rng


@dataclass(frozen=True)
class Loss:
    """What to minimise, and named parts to show (detached scalars, nats per token unless the name says otherwise)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Draws noise for a batch and returns the loss, averaged over the noised positions of these rows."""

    def __call__(self, model: Model, batch: Batch, *, rng: Rng) -> Loss: ...


def per_token(nats: Float[Tensor, " b"], batch: Batch) -> Float[Tensor, " b"]:
    """Nats per row to nats per token that could be noised."""
    return nats / batch.noised.sum(-1).clamp(min=1)
