"""Objectives: what training minimises, one file per loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..processes.densities import stratified

if TYPE_CHECKING:
    from ..batch import Batch
    from ..model import Model
    from ..randomness import Rng


@dataclass(frozen=True)
class Loss:
    """What to minimise, and named parts to show (detached scalars, nats per token unless the name says otherwise)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


def per_token(nats: Float[Tensor, " b"], batch: Batch) -> Float[Tensor, " b"]:
    """Nats per row to nats per token that could be noised."""
    return nats / batch.noised.sum(-1).clamp(min=1)


def density_fit(
    model: Model, t: Float[Tensor, " b"], nats: Float[Tensor, " b"], where: Bool[Tensor, " b"] | bool = True
) -> Float[Tensor, ""]:
    """The mean of what the density is to learn from the rows `where`; 0 for rows whose fit is no number."""
    with torch.no_grad():
        usable = model.density.fit_loss(t, nats).isfinite() & where
        middle = model.density.quantile(torch.full_like(t, 0.5))
    # Rows left out are replaced before the fit too: the gradient would be 0 times what is infinite in them.
    each = model.density.fit_loss(torch.where(usable, t, middle), torch.where(usable, nats, 0.0))
    return torch.where(usable, each, 0.0).mean()


def drawn_times(model: Model, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
    """One t per row from the model's density, stratified over the global batch."""
    return model.density.quantile(stratified(rng.fork("t"), batch.total or len(batch.ids)))


def corrupted(model: Model, x0: Tensor, t: Float[Tensor, "b *l"], batch: Batch, *, rng: Rng) -> Tensor:
    """A draw of x_t at the positions that may be noised; the others stay clean."""
    noised = batch.noised if x0.ndim == 2 else batch.noised[..., None]
    return torch.where(noised, model.process.corrupt(x0, t, rng=rng), x0)
