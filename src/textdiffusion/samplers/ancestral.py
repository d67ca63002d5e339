"""Ancestral sampling of processes over token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..batch import Batch
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
        times = even_times(model.density, request)
        yield from steps_back(model.process, times, guided(model, request), request, rng=rng)


@dataclass(frozen=True)
class Turn:
    """A step from t to s: what the state at t says, and the `confidence` of the tokens that it shows."""

    process: Any  # duck-typed, as in a model; the sampler's `processes` say which
    x: Int[Tensor, "b l"]
    prediction: Prediction
    t: Float[Tensor, " b"]
    s: Float[Tensor, " b"]
    batch: Batch
    confidence: Float[Tensor, "b l"]
    rng: Rng

    def reverse(self) -> Int[Tensor, "b l"]:
        """The state at s as the exact reverse process would draw it."""
        return self.process.reverse(self.x, self.prediction, self.t, self.s, rng=self.rng)


def even_times(density: Density, request: Request) -> Float[Tensor, " n"]:
    """From 1 to 0 in the steps of a request, as many of each part as the density has there."""
    return density.grid(torch.linspace(1.0, 0.0, request.steps + 1, device=request.batch.ids.device))


def steps_back(
    process: AbsorbingProcess | UniformProcess,
    times: Float[Tensor, " n"],
    denoiser: Denoiser,
    request: Request,
    *,
    rng: Rng,
    move: Callable[[Turn], Tensor] = Turn.reverse,
) -> Iterator[Step]:
    """Steps back as `denoiser` says, which may know more than what the request shows. `move` gives the state at s."""
    batch = request.batch
    x = torch.where(batch.noised, process.prior(batch.ids, rng=rng.fork("prior")), batch.ids)
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
        xs = move(Turn(process, x, Prediction(logits), t, s, batch, confidence, draws))
        xs = torch.where(batch.noised, steered(xs, s, request, draws), batch.ids)
        stale = (xs != x).any(-1) if denoiser.time_free else torch.ones_like(stale)
        shown = changing & (xs < process.vocab)
        confidence = shown_confidence(torch.where(xs == x, confidence, 0.0), shown, xs, logits)
        x = xs
        yield Step(i + 1, request.steps, float(times[i + 1]), x, confidence, x, calls)
