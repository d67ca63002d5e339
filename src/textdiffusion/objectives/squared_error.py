"""Squared error of the predicted clean state: the objective of Analog Bits, and a term of others."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..batch import Batch
from ..model import Model
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import Loss, density_fit, per_token
from .noised import noised


def squared_error(mean: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], batch: Batch) -> Float[Tensor, " b"]:
    """(mean - x0)^2 averaged over the coordinates of a row's noised positions, in squared units of the state."""
    return per_token(((mean - x0).square().mean(-1) * batch.noised).sum(-1), batch)


class SquaredError(nn.Module):
    """E_t |x0 - D(x_t)|^2, averaged over coordinates and noised positions (Analog Bits, eq. 4).

    The density is fitted to the share of the clean state that stays unknown, times the ln V nats of a token: 0 without
    noise, and at most about ln V in noise, as cross-entropy is, without logits.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """Squared units of the state."""
        drawn = noised(model, batch, rng=rng)
        row = squared_error(drawn.prediction.fitted, drawn.x0, batch)
        whole = squared_error(torch.zeros_like(drawn.x0), drawn.x0, batch).clamp(min=1e-12)
        fit = density_fit(model, drawn.t, row / whole * math.log(model.codec.vocab))
        total = row.mean()
        return Loss(total + fit, {"squared_error": total.detach(), "density_fit": fit.detach()})
