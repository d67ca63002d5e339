"""First-hitting sampling: one mask at a time, at the time when the reverse process would reveal it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from .base import Request, Sampler, Step
from .token_state import TokenState


@dataclass(frozen=True, kw_only=True)
class FirstHitting(Sampler):
    """First-hitting sampling: simulates the reverse process in continuous time, one mask per step.

    Zheng et al. (2024). For masked models, where one network call per token is affordable. Samples exactly the data
    distribution if the denoiser is ideal, because no two masks are revealed together. With n masks left at time t, the
    next one is revealed when the mask probability has fallen to mask_prob(t) u^(1/n) with a uniform u for each row, and
    is any of the n with equal probability. Takes at least as many steps as tokens (0 steps: exactly as many).
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)
    min_steps: ClassVar[int] = 0

    steps: int = 0

    @property
    def keeps_tokens(self) -> bool:
        return True

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text, whose `t` is the mean over rows. Raises UserError for too few steps."""
        batch, process, steps = request.batch, model.process, request.steps
        max_masks = int(batch.target_mask.sum(-1).max())
        if steps < max_masks:
            raise UserError(f"{steps} steps for {max_masks} tokens: first-hitting sampling takes one per token.")
        state = TokenState(model, request, rng=rng)
        t = state.x.new_ones(len(state.x), dtype=torch.float)
        yield state.as_step(0, 1.0)
        for i in range(steps):
            masked, step_rng = state.maskable, rng.fork(i)
            num_masked = masked.sum(-1)
            u = step_rng.fork("time").uniform(1)[:, 0]
            mask_prob = process.schedule.mask_prob(t) * u ** (1.0 / num_masked.clamp(min=1))
            mask_prob = mask_prob.clamp(min=1e-6)  # at t = 0 itself ratios are not finite
            t = torch.where(num_masked > 0, process.schedule.time(1.0 - mask_prob), 0.0)
            rows = num_masked.nonzero()[:, 0]
            if len(rows):
                scores = step_rng.fork("place").uniform(masked.shape[1]).masked_fill(~masked, -1.0)
                position = scores.argmax(-1)[rows]
                logits = state.denoiser(state.x[rows], t[rows], batch=batch.select(rows)).logits
                probs, xs = logits[torch.arange(len(rows)), position].softmax(-1), state.x.clone()
                xs[rows, position] = step_rng.select(rows).fork("token").categorical(probs)
                state.update(xs, t, logits, step_rng, rows)
            yield state.as_step(i + 1, float(t.mean()) if i + 1 < steps else 0.0)
