"""Ancestral sampling of processes over token ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from ..model import Model
from ..networks.denoisers import Denoiser
from ..prediction import Prediction
from ..processes.absorbing import AbsorbingProcess
from ..processes.densities import Density
from ..processes.uniform import UniformProcess
from ..randomness import Rng
from .step import Request, Step, guided, shown_confidence, steered


class Ancestral:
    """Steps back as the exact reverse process would (MDLM, section 3.3), on the density's grid of times.

    A network without a time input sees nothing new in a row that did not change, so its logits are kept row by row, and
    rows that are finished cost nothing. The last step leaves clean text by itself, as alpha(0) = 1: it draws every
    position that may still change from the prediction.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text."""
        yield from steps_back(model.process, model.density, guided(model, request), request, rng=rng)


def steps_back(
    process: AbsorbingProcess | UniformProcess, density: Density, denoiser: Denoiser, request: Request, *, rng: Rng
) -> Iterator[Step]:
    """Ancestral sampling as `denoiser` says, which may know more than what the request shows."""
    batch = request.batch
    x = torch.where(batch.noised, process.prior(batch.ids, rng=rng.fork("prior")), batch.ids)
    times = density.grid(torch.linspace(1.0, 0.0, request.steps + 1, device=x.device))
    logits = torch.zeros(*x.shape, process.vocab, device=x.device)
    stale, calls = torch.ones(len(x), dtype=torch.bool, device=x.device), 0.0
    confidence = batch.noised.logical_not().float()  # nothing has been predicted yet
    yield Step(0, request.steps, 1.0, x, confidence, x)
    for i in range(request.steps):
        t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
        changing = process.changing(x) & batch.noised
        rows = (stale & changing.any(-1)).nonzero()[:, 0]
        if len(rows):
            said = denoiser(x[rows], t[rows], batch=batch.select(rows))
            # What was drawn as a whole and not shown is as good as a new draw: it is kept with the rest.
            logits[rows] = said.drawn(rng.fork(i).fork("whole").select(rows)).logits
        calls += len(rows) / len(x)
        draws = rng.fork(i)
        xs = process.reverse(x, Prediction(logits), t, s, rng=draws)
        xs = torch.where(batch.noised, steered(xs, s, request, draws), batch.ids)
        stale = (xs != x).any(-1) if denoiser.time_free else torch.ones_like(stale)
        shown = changing & (xs < process.vocab)
        confidence = shown_confidence(torch.where(xs == x, confidence, 0.0), shown, xs, logits)
        x = xs
        yield Step(i + 1, request.steps, float(times[i + 1]), x, confidence, x, calls)
