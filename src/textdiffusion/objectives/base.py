"""What training minimises and what evaluation measures: the bases of objectives and likelihoods, and their tools.

An objective or a likelihood is one frozen dataclass: its fields are the settings in `config.json`, calling it computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import Part
from ..core.types import PerRow, Scalar, Times
from ..diffusion.densities import low_discrepancy
from ..diffusion.model import DiffusionModel


@dataclass(frozen=True)
class Loss:
    """The scalar to minimise, and named parts to log: detached scalars, in nats per token unless named otherwise."""

    total: Scalar
    parts: dict[str, Scalar] = field(default_factory=dict)


class Objective(Part, ABC):
    """A training loss. `processes` are the classes of diffusion process it can train.

    `follows_bound`: the lower the validation bound, the better the model. Otherwise the latest weights are the best.
    """

    processes: ClassVar[tuple[type, ...]]
    follows_bound: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss: ...


class Likelihood(Part, ABC):
    """-log p(x) in nats per row: the exact value if `exact`, else an unbiased estimate of an upper bound.

    `processes` are the classes of diffusion process it can measure.
    """

    processes: ClassVar[tuple[type, ...]]
    exact: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow: ...


def per_token(nats: PerRow, batch: Batch) -> PerRow:
    """Nats per row divided by the number of the row's target positions (at least 1)."""
    return nats / batch.target_mask.sum(-1).clamp(min=1)


def stratified_uniforms(batch: Batch, *, rng: Rng) -> PerRow:
    """One uniform per row, stratified over the global batch."""
    return low_discrepancy(rng, batch.global_batch_size or len(batch.tokens))


def sample_times(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Times:
    """One t per row from the model's time density, stratified over the global batch."""
    return model.time_density.icdf(stratified_uniforms(batch, rng=rng.fork("t")))


def add_noise(model: DiffusionModel, x0: Tensor, t: Float[Tensor, "b *l"], batch: Batch, *, rng: Rng) -> Tensor:
    """A sample of x_t at the target positions; all others stay clean."""
    target = batch.target_mask if x0.ndim == 2 else batch.target_mask[..., None]
    return torch.where(target, model.process.add_noise(x0, t, rng=rng), x0)
