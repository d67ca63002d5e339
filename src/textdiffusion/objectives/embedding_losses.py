"""Training losses of embedding diffusion: cross-entropy, squared error, and their combinations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import PerRow, Vectors
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.vector_predictions import X0Prediction
from .base import Loss, Objective, per_token
from .noised_batch import density_fit, noise_batch


def squared_error(mean: Vectors, x0: Vectors, batch: Batch) -> PerRow:
    """(mean - x0)^2 averaged over the coordinates of a row's target positions, in squared units of the state."""
    return per_token(((mean - x0).square().mean(-1) * batch.target_mask).sum(-1), batch)


@dataclass(frozen=True)
class ScoreInterpolation(Objective):
    """Cross-entropy of the clean tokens, nats per token, averaged over rows (CDCD, section 3.1).

    t is drawn from the model's time density; the loss has no other weight. The loss that fits the density
    (`TimeDensity.fitting_loss`) is added to the total. A fraction `per_token_noise` of the rows has one noise level per
    position (score-based-diffusion-lm); the density does not learn from those rows, whose loss belongs to no single
    level.
    """

    per_token_noise: float = 0.0

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, per_token_noise=(0.0, 1.0))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        uneven = rng.fork("uneven").uniform() < self.per_token_noise
        noised = noise_batch(model, batch, rng=rng, per_token_noise=uneven if self.per_token_noise else None)
        nats = per_token(noised.prediction.nll(batch.tokens, batch.target_mask).sum(-1), batch)
        fit, cross_entropy = density_fit(model, noised.t, nats, ~uneven), nats.mean()
        return Loss(cross_entropy + fit, {"cross_entropy": cross_entropy.detach(), "density_fit": fit.detach()})


@dataclass(frozen=True)
class SquaredError(Objective):
    """E_t |x0 - D(x_t)|^2, averaged over coordinates and target positions (Analog Bits, eq. 4).

    The time density is fitted to the fraction of the clean state that stays unknown times ln V nats: like
    cross-entropy that is 0 without noise and at most about ln V in pure noise, but it needs no logits.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        noised = noise_batch(model, batch, rng=rng)
        error = squared_error(noised.prediction.x0_estimate, noised.x0, batch)
        power = squared_error(torch.zeros_like(noised.x0), noised.x0, batch).clamp(min=1e-12)
        fit = density_fit(model, noised.t, error / power * math.log(model.codec.vocab_size))
        total = error.mean()
        return Loss(total + fit, {"squared_error": total.detach(), "density_fit": fit.detach()})


@dataclass(frozen=True)
class MSEWithCrossEntropy(Objective):
    """mse_weight E|x0 - D(x_t)|^2 + ce_weight E[-log p(token | D)], averaged over target positions (Difformer, eq. 8).

    Both terms are of one prediction. If the output head regresses the clean state, tokens are read from that state and
    cross-entropy is the anchor loss; if it gives logits, D is their mean, so training fits what sampling uses.

    Learned embeddings get gradients through the noisy input, and through the table as far as the prediction reads it.
    As targets they get them only with `grad_to_targets`: they then move towards the predictions, and without the
    cross-entropy all become equal. The time density is fitted to the cross-entropy.
    """

    mse_weight: float = 1.0
    ce_weight: float = 1.0
    grad_to_targets: bool = False

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, mse_weight=(0.0, None), ce_weight=(0.0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        noised = noise_batch(model, batch, rng=rng)
        target = noised.x0 if self.grad_to_targets else noised.x0.detach()
        error = squared_error(noised.prediction.x0_estimate, target, batch).mean()
        nats = per_token(noised.prediction.nll(batch.tokens, batch.target_mask).sum(-1), batch)
        fit, cross_entropy = density_fit(model, noised.t, nats), nats.mean()
        parts = {"squared_error": error, "cross_entropy": cross_entropy, "density_fit": fit}
        total = self.mse_weight * error + self.ce_weight * cross_entropy + fit
        return Loss(total, {name: part.detach() for name, part in parts.items()})


@dataclass(frozen=True)
class DiffusionLM(Objective):
    """E_t|start - D(x_t)|^2 + E[-log p(token | start)] + |sqrt(abar_T) start|^2, each weighted (Diffusion-LM, eq. 2).

    `start` is the embedding with the noise of t = 0, on the way to x_t. The network regresses it (at t = 0 the
    embedding itself) and tokens are rounded from it. Gradients reach the embeddings through all three terms; the
    rounding term keeps them apart. Averages are over coordinates and target positions, weighted by 1 / p(t), so the
    time density changes the variance of the loss but not its expectation.
    """

    mse_weight: float = 1.0
    rounding_weight: float = 1.0
    prior_weight: float = 1.0

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, mse_weight=(0.0, None), rounding_weight=(0.0, None), prior_weight=(0.0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        noised = noise_batch(model, batch, rng=rng)
        prediction, zero = noised.prediction, torch.zeros_like(noised.t)
        assert isinstance(prediction, X0Prediction)  # `config.compatibility` refuses other output heads
        clean = X0Prediction(noised.x0, prediction.head, prediction.table)
        start = model.process.reverse(noised.xt, clean, noised.t, zero, rng=rng.fork("start"))
        target = torch.where(noised.t[:, None, None] == 0, noised.x0, start)
        error = squared_error(prediction.x0_estimate, target, batch)
        nats = X0Prediction(start, prediction.head, prediction.table).nll(batch.tokens, batch.target_mask)
        rounding = per_token(nats.sum(-1), batch)
        variance = model.codec.scale**2
        alpha_bar = variance / (variance + model.process.sigma(zero + 1.0) ** 2)
        prior = alpha_bar * squared_error(torch.zeros_like(start), start, batch)
        row_loss = self.mse_weight * error + self.rounding_weight * rounding + self.prior_weight * prior
        fit = density_fit(model, noised.t, row_loss)
        total = (row_loss * torch.exp(-model.time_density.log_prob(noised.t))).mean()
        parts = {"squared_error": error, "rounding": rounding, "prior": prior}
        means = {name: part.mean().detach() for name, part in parts.items()}
        return Loss(total + fit, means | {"density_fit": fit.detach()})
