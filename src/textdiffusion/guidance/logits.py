"""Guides that change the logits of every prediction: temperature, top-k, top-p and allowed tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction
from ..samplers.base import LogitsGuide, Outermost, Request, WrappedDenoiser
from ..samplers.projections import nucleus

GREEDY = 1e-6
"""The temperature at or below which the likeliest token is always taken: logits divided by less would overflow."""


@dataclass(frozen=True)
class Temperature(LogitsGuide):
    """Divides the logits of every prediction: below 1 text is more likely and less diverse, above 1 the reverse.

    At or below `GREEDY` only the most likely token is left. A regressed state, or one made of bits, moves by as much as
    the mean of the tokens does.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(
                f"temperature is {self.temperature}; it must be above 0, or 0 for always the likeliest token."
            )

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        if self.temperature == 1.0:
            return denoiser

        def scale(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            if self.temperature > GREEDY:
                return prediction.with_logits(prediction.logits / self.temperature)
            logits = prediction.logits  # divided by less, they would overflow
            return prediction.with_logits(logits.masked_fill(logits < logits.amax(-1, keepdim=True), -torch.inf))

        return WrappedDenoiser(denoiser, scale)


@dataclass(frozen=True)
class Greedy(Outermost, LogitsGuide):
    """Takes the likeliest token wherever one is drawn: the limit of temperature 0.

    Under a required word or pattern it is the token of the likeliest text that matches. Orders of revealing still see
    how certain the prediction was.
    """

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return WrappedDenoiser(denoiser, lambda prediction, xt, t, batch: prediction.greedy())


@dataclass(frozen=True)
class TopKTopP(LogitsGuide):
    """Keeps the `top_k` most likely tokens of every prediction (0: all), then the fewest that sum to `top_p`.

    The other tokens get probability 0. A regressed state, or one made of bits, moves by as much as the mean of the
    tokens does.
    """

    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; it must be at least 1, or 0 for all tokens.")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        if self.top_k == 0 and self.top_p == 1.0:
            return denoiser
        return WrappedDenoiser(denoiser, self._truncate)

    def _truncate(self, prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        logits = prediction.logits
        if 0 < self.top_k < logits.shape[-1]:
            top = logits.topk(self.top_k, dim=-1).indices
            logits = torch.full_like(logits, -torch.inf).scatter(-1, top, logits.gather(-1, top))
        if self.top_p < 1.0:
            logits = logits.masked_fill(nucleus(logits.softmax(-1), self.top_p) == 0.0, -torch.inf)
        return prediction.with_logits(logits)


@dataclass(frozen=True, eq=False)
class AllowedTokens(LogitsGuide):
    """Restricts each position to the tokens of a set: row `Batch.allowed_set_ids` of `allowed` (None: row 0)."""

    allowed: Bool[Tensor, "k v"]

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        def restrict(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            allowed = self.allowed.to(prediction.logits.device)
            allowed = allowed[0] if batch.allowed_set_ids is None else allowed[batch.allowed_set_ids]
            return prediction.with_logits(prediction.logits.masked_fill(~allowed, -torch.inf))

        return WrappedDenoiser(denoiser, restrict)
