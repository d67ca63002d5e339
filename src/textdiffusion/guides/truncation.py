"""Predictions of likely tokens only."""

from __future__ import annotations

import torch

from ..errors import UserError
from ..networks.denoisers import Denoiser
from ..prediction import Prediction
from ..samplers.projection import nucleus
from ..samplers.step import Request
from . import Predicting, Wrapped


class Truncated(Predicting):
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
        return denoiser if everything else Wrapped(denoiser, lambda prediction, *_: self.truncated(prediction))

    def truncated(self, prediction: Prediction) -> Prediction:
        """The prediction of the tokens that are kept."""
        logits = prediction.logits
        if 0 < self.top_k < logits.shape[-1]:
            best = logits.topk(self.top_k, dim=-1).indices
            logits = torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
        if self.top_p < 1.0:
            logits = logits.masked_fill(nucleus(logits.softmax(-1), self.top_p) == 0.0, -torch.inf)
        return prediction.guided(logits)
