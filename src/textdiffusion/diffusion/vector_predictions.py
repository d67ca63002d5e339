"""Predictions of vectors whose mean is not, or need not be, that of their distribution of tokens."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F

from ..core.types import Logits, Mask, PerPosition, Table, Tokens, Vectors
from .prediction import Head, LazyPrediction, Prediction


class SeparateMean(Prediction):
    """A prediction whose mean does not follow from its distribution: a guide of the distribution must move the mean."""

    def with_logits(self, logits: Logits, known: Mask | bool = False) -> Prediction:
        return GuidedPrediction(self, logits, known)


class PredictionWithMean(SeparateMean):
    """A prediction with a given mean, which need not be that of its distribution, nor near any token."""

    def __init__(self, logits: Logits, mean: Vectors, table: Table | None) -> None:
        super().__init__(logits, table)
        self._mean = mean

    @property
    def mean(self) -> Vectors:
        return self._mean


class GuidedPrediction(SeparateMean):
    """A prediction with a separate mean, whose distribution a guide has changed.

    Its mean moves by as much as that of the distribution. Positions that are `known` have the mean of the distribution.
    """

    def __init__(self, native: Prediction, logits: Logits, known: Mask | bool) -> None:
        super().__init__(logits, native.table)
        self.native, self.known = native, torch.as_tensor(known, device=logits.device)

    @cached_property
    def mean(self) -> Vectors:
        assert self.table is not None, "a state of token ids has no mean"
        shifted = self.native.mean + (self.probs - self.native.probs) @ self.table
        return torch.where(self.known[..., None], self.probs @ self.table, shifted)


class X0Prediction(SeparateMean, LazyPrediction):
    """A prediction of the clean state itself: `hidden`, which `head` maps to logits.

    Its mean is the regressed state, or with `mean_from_logits` the mean of the distribution that the head computes from
    it, which is nearly exact if the regression is nearly right.
    """

    def __init__(self, hidden: Vectors, head: Head, table: Table | None = None, mean_from_logits: bool = False) -> None:
        super().__init__(hidden, head, table)
        self.mean_from_logits = mean_from_logits

    @property
    def mean(self) -> Vectors:
        return super().mean if self.mean_from_logits else self.hidden

    @property
    def x0_estimate(self) -> Vectors:
        return self.hidden

    def with_logits(self, logits: Logits, known: Mask | bool = False) -> Prediction:
        return Prediction(logits, self.table) if self.mean_from_logits else super().with_logits(logits, known)


class BitPrediction(SeparateMean, LazyPrediction):
    """An independent prediction of each bit of a code word: `hidden` is their log odds, which `head` maps to logits.

    `table` holds the code words of the tokens, whose bits are -scale or +scale.
    """

    def __init__(self, log_odds: Vectors, head: Head, table: Table, scale: float) -> None:
        super().__init__(log_odds, head, table)
        self.codes, self.scale = table, scale

    @cached_property
    def mean(self) -> Vectors:
        """The mean of every bit: scale * (2 sigmoid(log_odds) - 1)."""
        return self.scale * torch.tanh(0.5 * self.hidden)

    def nll(self, tokens: Tokens, where: Mask) -> PerPosition:
        """The logistic loss of the bits in nats: the cross-entropy of the code word among all words, used or not."""
        signs = F.embedding(tokens, self.codes) / self.scale
        return torch.where(where, F.softplus(-signs * self.hidden).sum(-1), 0.0)
