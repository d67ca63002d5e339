"""Squared error of the clean state anchored by cross-entropy: simple-diffusion-lm's and Difformer's objective."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from ..batch import Batch
from ..model import Model
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import Loss, density_fit, per_token
from .noised import noised
from .squared_error import squared_error


class AnchoredSquares(nn.Module):
    """`squares` E |x0 - D(x_t)|^2 + `anchor` E [-log p(token | D)], averaged over noised positions (Difformer, eq. 8).

    Both terms speak of one prediction. Where the readout regresses the clean state, tokens are read from that state and
    cross-entropy is the anchor loss; where it has logits, D is their mean, so that what is fitted is what is sampled.

    Learned embeddings get gradients through the noisy input, and through the table as far as the prediction reads it.
    As targets they move only with `moving`: to where predictions are, which without an anchor makes all of them one.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, squares: float = 1.0, anchor: float = 1.0, moving: bool = False) -> None:
        super().__init__()
        self.squares, self.anchor, self.moving = squares, anchor, moving

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """Squared units of the state plus nats per token; the density is fitted to the nats."""
        drawn = noised(model, batch, rng=rng)
        target = drawn.x0 if self.moving else drawn.x0.detach()
        error = squared_error(drawn.prediction.fitted, target, batch).mean()
        row = per_token(drawn.prediction.nll(batch.ids, batch.noised).sum(-1), batch)
        fit, nats = density_fit(model, drawn.t, row), row.mean()
        parts = {"squared_error": error.detach(), "cross_entropy": nats.detach(), "density_fit": fit.detach()}
        return Loss(self.squares * error + self.anchor * nats + fit, parts)
