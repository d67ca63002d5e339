"""Objectives: what training makes small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..networks.embedding_denoiser import EmbeddingDenoiserConfig
from ..networks.output_heads import OutputHeadConfig
from ..networks.simplex_denoiser import SimplexDenoiserConfig
from .base import ObjectivePart, check_bounds

if TYPE_CHECKING:
    from torch import nn

    from ..config.config import Config


@dataclass(frozen=True)
class MaskedELBO(ObjectivePart):
    """The masked bound, its weight cut at `max_weight` in training (0: never)."""

    max_weight: float = 3.0

    def __post_init__(self) -> None:
        check_bounds(self, max_weight=(0.0, None))

    def build(self) -> nn.Module:
        from ..objectives.masked import MaskedELBO as Built

        return Built(self.max_weight or None)


@dataclass(frozen=True)
class DiscreteELBO(ObjectivePart):
    """The bound of a chain over token ids in so many `steps` (0: continuous time), and so much plain cross-entropy."""

    steps: int = 0
    cross_entropy: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self, steps=(0, None), cross_entropy=(0.0, None))

    def build(self) -> nn.Module:
        from ..objectives.discrete import DiscreteELBO as Built

        return Built(self.steps, self.cross_entropy)


@dataclass(frozen=True)
class Duality(ObjectivePart):
    """The uniform bound in continuous time, on soft inputs of a temperature from `warm` to `cold` for `steps` steps."""

    steps: int = 2500
    tau_start: float = 0.1
    tau_end: float = 1e-3

    def __post_init__(self) -> None:
        check_bounds(self, steps=(0, None), tau_end=(1e-6, None), tau_start=(self.tau_end, None))

    def build(self) -> nn.Module:
        from ..objectives.discrete import Duality as Built

        return Built(self.steps, self.tau_start, self.tau_end)


@dataclass(frozen=True)
class ScoreEntropy(ObjectivePart):
    """The score entropy of ratios, its weight cut at `max_weight` in training (0: never)."""

    max_weight: float = 3.0

    def __post_init__(self) -> None:
        check_bounds(self, max_weight=(0.0, None))

    def build(self) -> nn.Module:
        from ..objectives.score_entropy import ScoreEntropy as Built

        return Built(self.max_weight or None)


@dataclass(frozen=True)
class ScoreInterpolation(ObjectivePart):
    """Cross-entropy at noised positions; a share `uneven` of the rows has a noise level for each position."""

    per_token_noise: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(self, per_token_noise=(0.0, 1.0))

    def build(self) -> nn.Module:
        from ..objectives.embedding_losses import ScoreInterpolation as Built

        return Built(self.per_token_noise)


def _readout(config: Config) -> OutputHeadConfig | None:
    """What a network of states predicts (None: it is one of tokens)."""
    return (
        config.denoiser.output_head
        if isinstance(config.denoiser, (EmbeddingDenoiserConfig, SimplexDenoiserConfig))
        else None
    )


@dataclass(frozen=True)
class SquaredError(ObjectivePart):
    """Squared error of the clean state at noised positions."""

    def build(self) -> nn.Module:
        from ..objectives.embedding_losses import SquaredError as Built

        return Built()


@dataclass(frozen=True)
class MSEWithCrossEntropy(ObjectivePart):
    """Squared error and cross-entropy of the clean state at noised positions, each with its weight.

    `moving` lets embeddings be moved as targets too.
    """

    mse_weight: float = 1.0
    ce_weight: float = 1.0
    grad_to_targets: bool = False

    def __post_init__(self) -> None:
        # Squared error alone is SquaredError; there embeddings would have nothing to keep them apart.
        check_bounds(self, mse_weight=(0.0, None), ce_weight=(1e-6, None))

    def build(self) -> nn.Module:
        from ..objectives.embedding_losses import MSEWithCrossEntropy as Built

        return Built(self.mse_weight, self.ce_weight, self.grad_to_targets)


@dataclass(frozen=True)
class DiffusionLM(ObjectivePart):
    """Squared error of the clean state, cross-entropy of rounding it, and a penalty on what is left of it in noise.

    Each has its weight; averages are over coordinates and tokens.
    """

    mse_weight: float = 1.0
    rounding_weight: float = 1.0
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(
            self, mse_weight=(0.0, None), rounding_weight=(1e-6, None), prior_weight=(0.0, None)
        )  # as for `anchor`

    def build(self) -> nn.Module:
        from ..objectives.embedding_losses import DiffusionLM as Built

        return Built(self.mse_weight, self.rounding_weight, self.prior_weight)


@dataclass(frozen=True)
class GaussianELBO(ObjectivePart):
    """The same bound, for training; one row in `every` is decoded."""

    every: int = 8

    def __post_init__(self) -> None:
        check_bounds(self, every=(2, None))

    def build(self) -> nn.Module:
        from ..objectives.gaussian_elbo import GaussianELBO as Built

        return Built(self.every)


@dataclass(frozen=True)
class NextToken(ObjectivePart):
    """Cross-entropy of the next token."""

    def build(self) -> nn.Module:
        from ..objectives.next_token import NextToken as Built

        return Built()
