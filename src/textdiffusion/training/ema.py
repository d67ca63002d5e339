"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..diffusion.model import DiffusionModel


class EMA:
    """An exponential moving average of a model's parameters and buffers, learned time densities included.

    `model` is a complete model, never compiled, ready to evaluate and sample from. With `decay` 0 it equals the source.
    """

    def __init__(self, model: DiffusionModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        source, target = _tensors(model), _tensors(self.model)
        averaged = [name for name in source if source[name].is_floating_point()]
        self._source = [source[name] for name in averaged]
        self._target = [target[name] for name in averaged]
        self._copied = [(source[name], target[name]) for name in source if name not in averaged]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Call after step number `step` (from 0)."""
        torch._foreach_lerp_(self._target, self._source, 1.0 - decay_at(self.decay, step))
        for source, target in self._copied:
            target.copy_(source)


def decay_at(decay: float, step: int) -> float:
    """min(decay, (1 + n) / (10 + n)): with 0.9999 from the start, the untrained weights would count for too long."""
    return min(decay, (1 + step) / (10 + step))


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()} | dict(model.named_buffers())
