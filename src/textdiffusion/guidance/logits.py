"""Softmax temperature."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction
from ..samplers.base import LogitsGuide, Request, WrappedDenoiser
from ..samplers.gaussian import nucleus


class Temperature(LogitsGuide):
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
        return WrappedDenoiser(
            denoiser, lambda prediction, *_: prediction.with_logits(prediction.logits / self.temperature)
        )


class TopKTopP(LogitsGuide):
    """Keeps the `top_k` likeliest tokens of every prediction (0: all), and of these the fewest that reach `top_p`.

    The others have probability 0. A regressed state, or bits, move by as much as the mean of the tokens does.
    """

    def __init__(self, top_k: int = 0, top_p: float = 1.0) -> None:
        if top_k < 0:
            raise UserError(f"top_k {top_k} is not allowed: it must be at least 1, or 0 for all tokens.")
        if not 0.0 < top_p <= 1.0:
            raise UserError(f"top_p {top_p} is not allowed: it must be above 0 and at most 1.")
        self.top_k, self.top_p = top_k, top_p

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions of fewer tokens."""
        everything = self.top_k == 0 and self.top_p == 1.0
        return denoiser if everything else WrappedDenoiser(denoiser, lambda prediction, *_: self.truncated(prediction))

    def truncated(self, prediction: Prediction) -> Prediction:
        """The prediction of the tokens that are kept."""
        logits = prediction.logits
        if 0 < self.top_k < logits.shape[-1]:
            best = logits.topk(self.top_k, dim=-1).indices
            logits = torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
        if self.top_p < 1.0:
            logits = logits.masked_fill(nucleus(logits.softmax(-1), self.top_p) == 0.0, -torch.inf)
        return prediction.with_logits(logits)


class AllowedTokens(LogitsGuide):
    """Free positions hold tokens that the row `Batch.holds` of `allowed` has (None: its row 0)."""

    def __init__(self, allowed: Bool[Tensor, "k v"]) -> None:
        self.allowed = allowed

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions in which all other tokens have probability 0."""

        def fitting(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            allowed = self.allowed.to(prediction.logits.device)
            held = allowed[0] if batch.allowed_set_ids is None else allowed[batch.allowed_set_ids]
            return prediction.with_logits(prediction.logits.masked_fill(~held, -torch.inf))

        return WrappedDenoiser(denoiser, fitting)
