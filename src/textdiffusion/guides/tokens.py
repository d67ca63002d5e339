"""Tokens that positions may hold."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from ..batch import Batch
from ..networks.denoisers import Denoiser
from ..prediction import Prediction
from ..samplers.step import Request
from . import Predicting, Wrapped


class Fitting(Predicting):
    """Free positions hold tokens that the row `Batch.holds` of `allowed` has (None: its row 0)."""

    def __init__(self, allowed: Bool[Tensor, "k v"]) -> None:
        self.allowed = allowed

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions in which all other tokens have probability 0."""

        def fitting(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            allowed = self.allowed.to(prediction.logits.device)
            held = allowed[0] if batch.holds is None else allowed[batch.holds]
            return prediction.guided(prediction.logits.masked_fill(~held, -torch.inf))

        return Wrapped(denoiser, fitting)
