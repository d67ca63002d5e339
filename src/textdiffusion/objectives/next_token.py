"""Left-to-right prediction: the exact likelihood, and its use as a training loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.types import PerRow
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.dual import DualProcess
from ..diffusion.model import DiffusionModel, next_token_prediction
from .base import Likelihood, Loss, Objective, per_token


@dataclass(frozen=True)
class NextTokenLikelihood(Likelihood):
    """-log p(x), exact, nats per row: the sum over positions of -log p(x_i | x_{<i}).

    Conditioning tokens are not summed, and positions before them do not see them. So this is exact for the distribution
    that infilling samples from; with a given prefix, that is the model's own conditional distribution.
    """

    processes: ClassVar[tuple[type, ...]] = (AutoregressiveProcess, DualProcess)
    exact: ClassVar[bool] = True

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """Deterministic: `rng` is not used."""
        return next_token_nats(model, batch)


@dataclass(frozen=True)
class NextToken(Objective):
    """Cross-entropy of the next token, nats per token."""

    processes: ClassVar[tuple[type, ...]] = (AutoregressiveProcess,)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """The mean over rows; `rng` is not used."""
        total = per_token(next_token_nats(model, batch), batch).mean()
        return Loss(total, {"bound": total.detach()})


def next_token_nats(model: DiffusionModel, batch: Batch) -> PerRow:
    """-log p(x) from left to right, nats per row."""
    prediction = next_token_prediction(model, batch.tokens, batch)
    return prediction.nll(batch.tokens, batch.target_mask).sum(-1)
