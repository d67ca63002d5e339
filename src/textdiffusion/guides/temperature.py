"""Softmax temperature."""

from __future__ import annotations

import math

from ..errors import UserError
from ..networks.denoisers import Denoiser
from ..samplers.step import Request
from . import Predicting, Wrapped


class Temperature(Predicting):
    """Divides the logits of every prediction: below 1 sharper and less diverse text, above 1 the reverse.

    A regressed state, or bits, move by as much as the mean of the tokens does.
    """

    def __init__(self, temperature: float) -> None:
        if not (temperature > 0 and math.isfinite(temperature)):
            raise UserError(f"temperature {temperature} is not allowed: it must be above 0.")
        self.temperature = temperature

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions with logits over temperature."""
        if self.temperature == 1.0:
            return denoiser
        return Wrapped(denoiser, lambda prediction, *_: prediction.guided(prediction.logits / self.temperature))
