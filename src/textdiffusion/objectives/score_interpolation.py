"""Cross-entropy with score interpolation: the objective of CDCD."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from ..batch import Batch
from ..model import Model
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import Loss, density_fit, per_token
from .noised import noised


class ScoreInterpolation(nn.Module):
    """Cross-entropy of the clean tokens, averaged over a row's noised positions, then over rows (CDCD, section 3.1).

    The draws of t follow the model's density, and are its only weighting; what the density learns from the losses is
    added to the total. A share `uneven` of the rows has a noise level for each position (score-based-diffusion-lm);
    the density does not learn from those, whose losses belong to no one level.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, uneven: float = 0.0) -> None:
        super().__init__()
        self.uneven = uneven

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """Nats per token."""
        uneven = rng.fork("uneven").uniform() < self.uneven
        drawn = noised(model, batch, rng=rng, uneven=uneven if self.uneven else None)
        row = per_token(drawn.prediction.nll(batch.ids, batch.noised).sum(-1), batch)
        fit = density_fit(model, drawn.t, row, ~uneven)
        total = row.mean()
        return Loss(total + fit, {"cross_entropy": total.detach(), "density_fit": fit.detach()})
