"""Autoregressive sampling: the order of revealing is left to right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.model import DiffusionModel
from .base import Request, Step
from .token_state import TokenState


class Autoregressive:
    """One token a step, each drawn given those before it."""

    processes: ClassVar[tuple[type, ...]] = (AutoregressiveProcess,)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text, one for every position."""
        batch, length = request.batch, request.batch.tokens.shape[1]
        if request.steps != length:
            raise UserError(f"{request.steps} steps asked for {length} tokens: left to right takes one step per token.")
        stream = TokenState(model, request, rng=rng)
        yield stream.step(0, 1.0)
        for i in range(length):
            x, draws = stream.x, rng.fork(i)
            t = torch.full((len(x),), 1.0 - i / length, device=x.device)
            logits = stream.denoiser(x[:, : i + 1], t, batch=batch.slice(0, i + 1)).logits[:, -1:]
            xs = x.clone()
            xs[:, i : i + 1] = draws.categorical(logits.softmax(-1))
            stream.update(stream.apply_condition(xs), t - 1.0 / length, logits.expand(-1, length, -1), draws)
            yield stream.step(i + 1, 1.0 - (i + 1) / length)
