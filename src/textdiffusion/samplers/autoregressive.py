"""Autoregressive sampling, from left to right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.dual import DualProcess
from ..diffusion.model import DiffusionModel, SupportsCaching
from .base import Request, Sampler, Step
from .token_state import TokenState


@dataclass(frozen=True, kw_only=True)
class Autoregressive(Sampler):
    """Draws one token per step from left to right, each given all tokens before it.

    For autoregressive models and those of dual training. Samples exactly the model's distribution. The number of steps
    must be the number of tokens (0 steps means that). Keys and values of earlier tokens are cached, which changes only
    the speed, and positions whose token is given in every row cost no call.
    """

    processes: ClassVar[tuple[type, ...]] = (AutoregressiveProcess, DualProcess)
    min_steps: ClassVar[int] = 0

    steps: int = 0

    @property
    def keeps_tokens(self) -> bool:
        return True

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text. Raises UserError if the number of steps is not the number of tokens."""
        batch, length = request.batch, request.batch.tokens.shape[1]
        if request.steps != length:
            raise UserError(f"{request.steps} steps for {length} tokens: autoregressive sampling takes one per token.")
        denoiser = model.denoiser.cached() if isinstance(model.denoiser, SupportsCaching) else None
        assert denoiser or not model.process.bidirectional, "the denoiser would see masks for later tokens"
        state, is_free = TokenState(model, request, rng=rng, denoiser=denoiser), batch.target_mask.any(0).tolist()
        yield state.as_step(0, 1.0)
        for i in range(length):
            if not is_free[i]:
                yield state.as_step(i + 1, 1.0 - (i + 1) / length)
                continue
            x, step_rng = state.x, rng.fork(i)
            t = torch.full((len(x),), 1.0 - i / length, device=x.device)
            logits = state.denoiser(x[:, : i + 1], t, batch=batch.slice(0, i + 1)).logits[:, -1:]
            xs = x.clone()
            xs[:, i : i + 1] = step_rng.categorical(logits.softmax(-1))
            state.update(state.apply_condition(xs), t - 1.0 / length, logits.expand(-1, length, -1), step_rng)
            yield state.as_step(i + 1, 1.0 - (i + 1) / length)
