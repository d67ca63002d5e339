"""What the time densities have in common that are fitted to the training losses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..core.types import PerRow, Times, Values
from .densities import TimeDensity


class FittedDensity(TimeDensity, ABC):
    """A density with parameters `fit`, which training fits; draws follow a moving average of them, updated at `rate`.

    A fraction `uniform_mix` of the draws is uniform in t.
    """

    averaged: Tensor

    def __init__(self, fit: Tensor, uniform_mix: float, rate: float) -> None:
        super().__init__()
        self.fit = nn.Parameter(fit)
        self.register_buffer("averaged", fit.clone())
        self.uniform_mix, self.rate = uniform_mix, rate

    def log_prob(self, t: Values) -> Values:
        return self._log_prob(t, self.averaged)

    def fitting_loss(self, t: Times, nats: PerRow) -> PerRow:
        """Importance-weighted squared error of the loss curve; `nats` is cross-entropy per token (CDCD, section 3.4).

        The weight 1 / p(t) matters, because the draws come from the very density that is being learned.
        """
        return torch.exp(-self.log_prob(t)) * (self._loss_curve(t, self.fit) - nats.detach()) ** 2

    def predicted_loss(self, t: Values) -> Values | None:
        """The averaged curve, in nats per token."""
        return self._loss_curve(t, self.averaged)

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves the average towards the fit. A fit that is not finite is replaced by the average."""
        self.fit.copy_(torch.where(self.fit.isfinite().all(), self.fit, self.averaged))
        self.averaged.lerp_(self.fit, self.rate)

    @abstractmethod
    def _loss_curve(self, t: Tensor, fit: Tensor) -> Tensor:
        """Cross-entropy at t under these parameters, in nats per token."""

    @abstractmethod
    def _log_prob(self, t: Tensor, fit: Tensor) -> Tensor:
        """Log density of t under these parameters, in nats."""
