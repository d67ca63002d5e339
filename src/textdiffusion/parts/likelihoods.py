"""Likelihoods: what a text is evaluated by, exact or a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import LikelihoodPart, check_bounds

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class MaskedLikelihood(LikelihoodPart):
    """The masked bound with exactly k masks, for evaluation."""

    def build(self) -> nn.Module:
        from ..objectives.masked import MaskedLikelihood as Built

        return Built()


@dataclass(frozen=True)
class DiscreteLikelihood(LikelihoodPart):
    """The bound of a chain over token ids, for evaluation."""

    steps: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, steps=(0, None))

    def build(self) -> nn.Module:
        from ..objectives.discrete import DiscreteLikelihood as Built

        return Built(self.steps)


@dataclass(frozen=True)
class ScoreEntropyLikelihood(LikelihoodPart):
    """The score entropy as a bound, for evaluation."""

    def build(self) -> nn.Module:
        from ..objectives.score_entropy import ScoreEntropyLikelihood as Built

        return Built()


@dataclass(frozen=True)
class GaussianLikelihood(LikelihoodPart):
    """The bound of Gaussian processes, for evaluation; tokens are read at the lowest noise by Bayes' rule or, with
    `learned_decoder`, by the network."""

    learned_decoder: bool = False

    def build(self) -> nn.Module:
        from ..objectives.gaussian_elbo import GaussianLikelihood as Built

        return Built(learned_decoder=self.learned_decoder)


@dataclass(frozen=True)
class NextTokenLikelihood(LikelihoodPart):
    """The exact likelihood, left to right."""

    def build(self) -> nn.Module:
        from ..objectives.next_token import NextTokenLikelihood as Built

        return Built()
