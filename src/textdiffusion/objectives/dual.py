"""Dual training: the next token under the causal mask, masked tokens under the full one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Scalar
from ..diffusion.dual import DualProcess
from ..diffusion.model import DiffusionModel
from .base import Loss, Objective, per_token
from .masked import MaskedELBO
from .next_token import next_token_nats


@dataclass(frozen=True)
class Dual(Objective):
    """a L_next + (1 - a) L_masked, nats per token (arXiv:2512.14549).

    L_next is the cross-entropy of the next token, on every other row of the batch; L_masked is `MaskedELBO`, on the
    rest (a batch of one row serves both). The weight a is `next_weight`. With `ramp_steps` it moves evenly to
    `final_weight` over so many steps of training: few passes over a text favour left to right, many favour masks.
    """

    processes: ClassVar[tuple[type, ...]] = (DualProcess,)

    next_weight: float = 0.5
    final_weight: float = 0.5
    ramp_steps: int = 0
    max_weight: float = 3.0

    def __post_init__(self) -> None:
        check_bounds(
            self, next_weight=(0.0, 1.0), final_weight=(0.0, 1.0), ramp_steps=(0, None), max_weight=(0.0, None)
        )

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """The masked rows have one t each, stratified over the global batch."""
        odd = slice(min(1, len(batch.tokens) - 1), None, 2)
        batch = replace(batch, global_batch_size=batch.global_batch_size or len(batch.tokens))
        masked = MaskedELBO(self.max_weight)(model, batch.select(odd), rng=rng.select(odd))
        even = batch.select(slice(0, None, 2))
        next_token = per_token(next_token_nats(model, even), even).mean()
        weight = self._weight(model)
        total = weight * next_token + (1.0 - weight) * masked.total
        return Loss(total, {"next_token": next_token.detach(), **masked.parts})

    def _weight(self, model: DiffusionModel) -> Scalar | float:
        if not self.ramp_steps:
            return self.next_weight
        progress = (model.step / self.ramp_steps).clamp(max=1.0)
        return self.next_weight + (self.final_weight - self.next_weight) * progress
