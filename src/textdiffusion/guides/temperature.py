"""Softmax temperature."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..batch import Batch
from ..errors import UserError
from ..networks.denoisers import Denoiser
from ..prediction import Prediction
from ..randomness import Rng
from . import EVERY, Wrapped


class Temperature:
    """Divides the logits of every prediction: below 1 sharper and less diverse text, above 1 the reverse."""

    processes: ClassVar[tuple[type, ...]] = EVERY

    def __init__(self, temperature: float) -> None:
        if not temperature > 0:
            raise UserError(f"temperature {temperature} is not allowed: it must be above 0.")
        self.temperature = temperature

    def wrap(self, denoiser: Denoiser) -> Denoiser:
        """Predictions with logits over temperature."""
        return Wrapped(denoiser, lambda p, batch: Prediction(p.logits / self.temperature, p.table))

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """Nothing."""
        return xs
