"""Masked models one token at a time, each at the time at which the reverse process would reveal it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from .base import Request, Step
from .token_state import TokenState


class FirstHitting:
    """The reverse process without steps of time (Zheng et al. 2024, First-Hitting Sampler), for a whole batch at once.

    With n masks left at the time t, the next is revealed when the masked share is share(t) u^(1/n), with a uniform u of
    each row's own; any of them is as likely. So there is no error of steps: the law is that of the continuous reverse
    process, which is the data's where the denoiser is ideal. A network without a time input sees nothing of the times.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text, at most one token a row each. A step's `t` is the mean over rows."""
        batch, process, steps = request.batch, model.process, request.steps
        most = int(batch.target_mask.sum(-1).max())
        if steps < most:
            raise UserError(f"{steps} steps asked for {most} tokens: first hitting takes one step per token.")
        stream = TokenState(model, request, rng=rng)
        t = stream.x.new_ones(len(stream.x), dtype=torch.float)
        yield stream.step(0, 1.0)
        for i in range(steps):
            masked, draws = stream.maskable, rng.fork(i)
            left = masked.sum(-1)
            hit = process.schedule.mask_prob(t) * draws.fork("time").uniform(1)[:, 0] ** (1.0 / left.clamp(min=1))
            hit = hit.clamp(min=1e-6)  # at t = 0 itself ratios are not finite
            t = torch.where(left > 0, process.schedule.time(1.0 - hit), 0.0)
            rows = left.nonzero()[:, 0]
            if len(rows):
                place = draws.fork("place").uniform(masked.shape[1]).masked_fill(~masked, -1.0).argmax(-1)[rows]
                logits = stream.denoiser(stream.x[rows], t[rows], batch=batch.select(rows)).logits
                probs, xs = logits[torch.arange(len(rows)), place].softmax(-1), stream.x.clone()
                xs[rows, place] = draws.select(rows).fork("token").categorical(probs)
                stream.update(xs, t, logits, draws, rows)
            yield stream.step(i + 1, float(t.mean()) if i + 1 < steps else 0.0)
