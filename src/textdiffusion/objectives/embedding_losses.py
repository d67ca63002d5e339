"""Cross-entropy with score interpolation: the objective of CDCD."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import X0Prediction
from .base import Loss, density_fit, noise_batch, per_token


class ScoreInterpolation(nn.Module):
    """Cross-entropy of the clean tokens, averaged over a row's noised positions, then over rows (CDCD, section 3.1).

    The draws of t follow the model's density, and are its only weighting; what the density learns from the losses is
    added to the total. A share `uneven` of the rows has a noise level for each position (score-based-diffusion-lm);
    the density does not learn from those, whose losses belong to no one level.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, uneven: float = 0.0) -> None:
        super().__init__()
        self.per_token_noise = uneven

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """Nats per token."""
        uneven = rng.fork("uneven").uniform() < self.per_token_noise
        drawn = noise_batch(model, batch, rng=rng, uneven=uneven if self.per_token_noise else None)
        row = per_token(drawn.prediction.nll(batch.tokens, batch.target_mask).sum(-1), batch)
        fit = density_fit(model, drawn.t, row, ~uneven)
        total = row.mean()
        return Loss(total + fit, {"cross_entropy": total.detach(), "density_fit": fit.detach()})


def squared_error(mean: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], batch: Batch) -> Float[Tensor, " b"]:
    """(mean - x0)^2 averaged over the coordinates of a row's noised positions, in squared units of the state."""
    return per_token(((mean - x0).square().mean(-1) * batch.target_mask).sum(-1), batch)


class SquaredError(nn.Module):
    """E_t |x0 - D(x_t)|^2, averaged over coordinates and noised positions (Analog Bits, eq. 4).

    The density is fitted to the share of the clean state that stays unknown, times the ln V nats of a token: 0 without
    noise, and at most about ln V in noise, as cross-entropy is, without logits.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """Squared units of the state."""
        drawn = noise_batch(model, batch, rng=rng)
        row = squared_error(drawn.prediction.x0_estimate, drawn.x0, batch)
        whole = squared_error(torch.zeros_like(drawn.x0), drawn.x0, batch).clamp(min=1e-12)
        fit = density_fit(model, drawn.t, row / whole * math.log(model.codec.vocab_size))
        total = row.mean()
        return Loss(total + fit, {"squared_error": total.detach(), "density_fit": fit.detach()})


class MSEWithCrossEntropy(nn.Module):
    """`squares` E |x0 - D(x_t)|^2 + `anchor` E [-log p(token | D)], averaged over noised positions (Difformer, eq. 8).

    Both terms speak of one prediction. Where the readout regresses the clean state, tokens are read from that state and
    cross-entropy is the anchor loss; where it has logits, D is their mean, so that what is fitted is what is sampled.

    Learned embeddings get gradients through the noisy input, and through the table as far as the prediction reads it.
    As targets they move only with `moving`: to where predictions are, which without an anchor makes all of them one.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, squares: float = 1.0, anchor: float = 1.0, moving: bool = False) -> None:
        super().__init__()
        self.mse_weight, self.ce_weight, self.grad_to_targets = squares, anchor, moving

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """Squared units of the state plus nats per token; the density is fitted to the nats."""
        drawn = noise_batch(model, batch, rng=rng)
        target = drawn.x0 if self.grad_to_targets else drawn.x0.detach()
        error = squared_error(drawn.prediction.x0_estimate, target, batch).mean()
        row = per_token(drawn.prediction.nll(batch.tokens, batch.target_mask).sum(-1), batch)
        fit, nats = density_fit(model, drawn.t, row), row.mean()
        parts = {"squared_error": error.detach(), "cross_entropy": nats.detach(), "density_fit": fit.detach()}
        return Loss(self.mse_weight * error + self.ce_weight * nats + fit, parts)


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

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """Squared units of the state plus nats per token."""
        drawn = noise_batch(model, batch, rng=rng)
        prediction, zero = drawn.prediction, torch.zeros_like(drawn.t)
        assert isinstance(prediction, X0Prediction)
        clean = X0Prediction(drawn.x0, prediction.head, prediction.table)
        start = model.process.reverse(drawn.xt, clean, drawn.t, zero, rng=rng.fork("start"))
        target = torch.where(drawn.t[:, None, None] == 0, drawn.x0, start)
        error = squared_error(prediction.x0_estimate, target, batch)
        nats = X0Prediction(start, prediction.head, prediction.table).nll(batch.tokens, batch.target_mask)
        rounding = per_token(nats.sum(-1), batch)
        unit = model.codec.scale**2
        alpha_bar = unit / (unit + model.process.sigma(zero + 1.0) ** 2)
        prior = alpha_bar * squared_error(torch.zeros_like(start), start, batch)
        row = self.error * error + self.rounding * rounding + self.prior * prior
        fit = density_fit(model, drawn.t, row)
        total = (row * torch.exp(-model.time_density.log_prob(drawn.t))).mean()
        parts = {"squared_error": error, "rounding": rounding, "prior": prior}
        return Loss(total + fit, {n: v.mean().detach() for n, v in parts.items()} | {"density_fit": fit.detach()})
