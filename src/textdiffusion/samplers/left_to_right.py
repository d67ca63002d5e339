"""Autoregressive sampling: the order of revealing is left to right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from ..errors import UserError
from ..model import Model
from ..processes.left_to_right import LeftToRightProcess
from ..randomness import Rng
from .step import Request, Step, guided, steered


class LeftToRight:
    """One token a step, each drawn given those before it."""

    processes: ClassVar[tuple[type, ...]] = (LeftToRightProcess,)

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text, one for every position."""
        batch, process = request.batch, model.process
        length = batch.ids.shape[1]
        if request.steps != length:
            raise UserError(f"{request.steps} steps asked for {length} tokens: left to right takes one step per token.")
        denoiser = guided(model, request)
        x = torch.where(batch.noised, process.prior(batch.ids, rng=rng), batch.ids)
        confidence = batch.noised.logical_not().float()
        yield Step(0, length, 1.0, x, confidence, x)
        for i in range(length):
            t = torch.full((len(x),), 1.0 - i / length, device=x.device)
            probs = denoiser(x[:, : i + 1], t, batch=batch.between(0, i + 1)).logits[:, -1:].softmax(-1)
            token = rng.fork(i).categorical(probs)
            x, confidence = x.clone(), confidence.clone()
            chosen = probs.gather(-1, token[..., None])[..., 0, 0]
            x[:, i] = torch.where(batch.noised[:, i], token[:, 0], x[:, i])
            x = torch.where(batch.noised, steered(x, t - 1.0 / length, request, rng.fork(i)), batch.ids)
            confidence[:, i] = torch.where(batch.noised[:, i], chosen, 1.0)
            yield Step(i + 1, length, 1.0 - (i + 1) / length, x, confidence, x, i + 1.0)
