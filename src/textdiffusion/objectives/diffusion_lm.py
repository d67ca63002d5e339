"""Squared error, rounding and prior: the objective of Diffusion-LM."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from ..batch import Batch
from ..model import Model
from ..prediction import RegressedPrediction
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import Loss, density_fit, per_token
from .noised import noised
from .squared_error import squared_error


class DiffusionLM(nn.Module):
    """E_t |start - D(x_t)|^2 + E[-log p(token | start)] + |sqrt(abar_T) start|^2 (Diffusion-LM, equation 2).

    `start` is the embedding with the noise of t = 0, on the way to x_t: tokens are rounded from it, and the network
    regresses it, but at t = 0 the embedding itself. Gradients reach the embeddings through all three terms; rounding
    is what keeps them apart. Averages are over coordinates and noised positions, weighted by 1 / p(t), so that the
    density changes the variance of the loss and not the loss.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, error: float = 1.0, rounding: float = 1.0, prior: float = 1.0) -> None:
        super().__init__()
        self.error, self.rounding, self.prior = error, rounding, prior

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """Squared units of the state plus nats per token."""
        drawn = noised(model, batch, rng=rng)
        prediction, zero = drawn.prediction, torch.zeros_like(drawn.t)
        assert isinstance(prediction, RegressedPrediction)
        clean = RegressedPrediction(drawn.x0, prediction.head, prediction.table)
        start = model.process.reverse(drawn.xt, clean, drawn.t, zero, rng=rng.fork("start"))
        target = torch.where(drawn.t[:, None, None] == 0, drawn.x0, start)
        error = squared_error(prediction.fitted, target, batch)
        nats = RegressedPrediction(start, prediction.head, prediction.table).nll(batch.ids, batch.noised)
        rounding = per_token(nats.sum(-1), batch)
        unit = model.codec.scale**2
        alpha_bar = unit / (unit + model.process.sigma(zero + 1.0) ** 2)
        prior = alpha_bar * squared_error(torch.zeros_like(start), start, batch)
        row = self.error * error + self.rounding * rounding + self.prior * prior
        fit = density_fit(model, drawn.t, row)
        total = (row * torch.exp(-model.density.log_prob(drawn.t))).mean()
        parts = {"squared_error": error, "rounding": rounding, "prior": prior}
        return Loss(total + fit, {n: v.mean().detach() for n, v in parts.items()} | {"density_fit": fit.detach()})
