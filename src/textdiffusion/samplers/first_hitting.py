"""Masked models one token at a time, each at the time at which the reverse process would reveal it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from ..errors import UserError
from ..model import Model
from ..processes.absorbing import AbsorbingProcess
from ..randomness import Rng
from .step import Request, Step, guided, steered


class FirstHitting:
    """The reverse process without steps of time (Zheng et al. 2024, First-Hitting Sampler), for a whole batch at once.

    With n masks left at the time t, the next is revealed when the masked share is share(t) u^(1/n), with a uniform u of
    each row's own; any of them is as likely. So there is no error of steps: the law is that of the continuous reverse
    process, which is the data's where the denoiser is ideal. A network without a time input sees nothing of the times.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text, at most one token a row each. A step's `t` is the mean over rows."""
        batch, process, steps = request.batch, model.process, request.steps
        most = int(batch.noised.sum(-1).max())
        if steps < most:
            raise UserError(f"{steps} steps asked for {most} tokens: first hitting takes one step per token.")
        denoiser = guided(model, request)
        x = torch.where(batch.noised, process.prior(batch.ids, rng=rng), batch.ids)
        t = x.new_ones(len(x), dtype=torch.float)
        confidence, calls = batch.noised.logical_not().float(), 0.0
        yield Step(0, steps, 1.0, x, confidence, x)
        for i in range(steps):
            masked, draws = process.changing(x) & batch.noised, rng.fork(i)
            left = masked.sum(-1)
            hit = process.schedule.share(t) * draws.fork("time").uniform(1)[:, 0] ** (1.0 / left.clamp(min=1))
            hit = hit.clamp(min=1e-6)  # at t = 0 itself ratios are not finite
            t = torch.where(left > 0, process.schedule.time(1.0 - hit), 0.0)
            rows = left.nonzero()[:, 0]
            if len(rows):
                place = draws.fork("place").uniform(x.shape[1]).masked_fill(~masked, -1.0).argmax(-1)[rows]
                probs = denoiser(x[rows], t[rows], batch=batch.select(rows)).logits
                probs = probs[torch.arange(len(rows)), place].softmax(-1)
                token = draws.select(rows).fork("token").categorical(probs)
                x, confidence = x.clone(), confidence.clone()
                x[rows, place], confidence[rows, place] = token, probs.gather(-1, token[:, None])[:, 0]
                calls += len(rows) / len(x)
            xs = torch.where(batch.noised, steered(x, t, request, draws), batch.ids)
            x, confidence = xs, torch.where(xs == x, confidence, 0.0)
            yield Step(i + 1, steps, float(t.mean()) if i + 1 < steps else 0.0, x, confidence, x, calls)
