"""Predictions moved to single tokens: projection before a step, clamping, and the nucleus of a distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import Part, check_bounds
from ..core.types import Tokens
from ..diffusion.prediction import Prediction, PredictionWithMean, one_hot_logits


class Projection(Part, ABC):
    """What a sampler makes of each prediction before the state moves towards it (SSD-LM, section 3.3)."""

    @abstractmethod
    def __call__(self, prediction: Prediction, *, rng: Rng) -> Prediction:
        """The projected prediction."""


@dataclass(frozen=True)
class NoProjection(Projection, name="none"):
    """The prediction itself: the state moves towards its mean."""

    def __call__(self, prediction: Prediction, *, rng: Rng) -> Prediction:
        return prediction


@dataclass(frozen=True)
class GreedyProjection(Projection, name="greedy"):
    """Certainty of the most likely token at each position."""

    def __call__(self, prediction: Prediction, *, rng: Rng) -> Prediction:
        return Prediction(one_hot_logits(prediction.argmax, prediction.logits), prediction.table)


@dataclass(frozen=True)
class SampleProjection(Projection, name="sample"):
    """Certainty of a token drawn from the nucleus of probability `top_p` (1: from all tokens)."""

    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, top_p=(1e-6, 1.0))

    def __call__(self, prediction: Prediction, *, rng: Rng) -> Prediction:
        """A prediction that is certain of one token per position.

        Raises UserError if `top_p` is below 1 and the prediction samples texts jointly, which have no nucleus.
        """
        rng = rng.fork("projection")
        sampled = prediction.sample_joint(rng)
        if sampled is not prediction and self.top_p < 1.0:
            raise UserError("sampler.projection.top_p does not work with a required word or pattern; use --top-p.")
        tokens = rng.categorical(nucleus(sampled.probs, self.top_p))
        return Prediction(one_hot_logits(tokens, prediction.logits), prediction.table)


class ClampedPrediction(PredictionWithMean):
    """A prediction whose mean is moved to the nearest token's state (Diffusion-LM, section 4.2). Its logits stay."""

    def __init__(self, prediction: Prediction) -> None:
        table, mean = prediction.table, prediction.mean
        assert table is not None, "a state of token ids has no mean"
        nearest = (mean @ table.T - 0.5 * table.square().sum(-1)).argmax(-1)
        super().__init__(prediction.logits, table[nearest], table)
        self.unclamped = prediction

    @property
    def argmax(self) -> Tokens:
        return self.unclamped.argmax

    def sample_joint(self, rng: Rng) -> Prediction:
        sampled = self.unclamped.sample_joint(rng)
        return self if sampled is self.unclamped else sampled


def nucleus(probs: Float[Tensor, "*b v"], top_p: float) -> Float[Tensor, "*b v"]:
    """The smallest set of most likely tokens whose probabilities sum to `top_p`, renormalised."""
    sorted_probs, index = probs.sort(-1, descending=True)
    in_nucleus = sorted_probs.cumsum(-1) - sorted_probs < top_p  # the tokens before it do not reach top_p
    sorted_probs = torch.where(in_nucleus, sorted_probs, 0.0)
    return torch.zeros_like(probs).scatter(-1, index, sorted_probs / sorted_probs.sum(-1, keepdim=True))
