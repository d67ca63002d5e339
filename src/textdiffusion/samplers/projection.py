"""Predictions moved to single tokens, between a continuous sampler's prediction and its step."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..prediction import Placed, Prediction, certain
from ..randomness import Rng

Mode = Literal["none", "greedy", "sample"]


class Clamped(Placed):
    """A prediction whose mean is moved to the nearest row of the table; its tokens stay (Diffusion-LM, section 4.2)."""

    def __init__(self, prediction: Prediction) -> None:
        table, mean = prediction.table, prediction.mean
        assert table is not None, "a state of token ids has no mean"
        nearest = (mean @ table.T - 0.5 * table.square().sum(-1)).argmax(-1)
        super().__init__(prediction.logits, table[nearest], table)
        self.before = prediction

    @property
    def best(self) -> Int[Tensor, "b l"]:
        return self.before.best

    def drawn(self, rng: Rng) -> Prediction:
        whole = self.before.drawn(rng)
        return self if whole is self.before else whole


def nucleus(probs: Float[Tensor, "*b v"], share: float) -> Float[Tensor, "*b v"]:
    """The smallest set of most likely tokens whose probabilities reach `share`, renormalised (top-p)."""
    ordered, index = probs.sort(-1, descending=True)
    kept = ordered.cumsum(-1) - ordered < share  # what stands before a token decides whether it is still needed
    ordered = torch.where(kept, ordered, 0.0)
    return torch.zeros_like(probs).scatter(-1, index, ordered / ordered.sum(-1, keepdim=True))


def projected(prediction: Prediction, mode: Mode, top_p: float, *, rng: Rng) -> Prediction:
    """The prediction made certain of one token: the likeliest, or one drawn from its nucleus (SSD-LM, section 3.3).

    Raises UserError for a nucleus of a law that is drawn from as a whole, which has none.
    """
    if mode == "none":
        return prediction
    if mode == "greedy":
        ids = prediction.best
    else:
        draws = rng.fork("projection")
        whole = prediction.drawn(draws)
        if whole is not prediction and top_p < 1.0:
            raise UserError("sampler.top_p cannot be used with a word or pattern that every text has; use --top-p.")
        ids = draws.categorical(nucleus(whole.probs, top_p))
    return Prediction(certain(ids, prediction.logits), prediction.table)
