"""How much memory a training takes: weights, gradients, optimizer, average, activations and logits."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.build import count_parameters
from ..config.config import Config


@dataclass(frozen=True)
class StateBytes:
    """Bytes that do not depend on the batch."""

    weights: int
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average


def state_bytes(config: Config, vocab_size: int) -> StateBytes:
    p = sum(count_parameters(config, vocab_size).values())
    return StateBytes(4 * p, 4 * p, 8 * p, 4 * p)
