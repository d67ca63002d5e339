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
from ..prediction import Prediction
from ..processes.absorbing import AbsorbingProcess
from ..processes.densities import Density
from ..processes.uniform import UniformProcess
from ..randomness import Rng
from .step import Request, Step
from .token_stream import TokenStream


class Ancestral:
    """Steps back as the exact reverse process would (MDLM, section 3.3), on the density's grid of times.

    A network without a time input sees nothing new in a row that did not change, so its logits are kept row by row, and
    rows that are finished cost nothing. The last step leaves clean text by itself, as alpha(0) = 1: it draws every
    position that may still change from the prediction.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text."""
        yield from steps_back(TokenStream(model, request, rng=rng), even_times(model.density, request), rng=rng)


@dataclass(frozen=True)
class Turn:
    """A step from t to s: what the state at t says, and the `confidence` of the tokens that it shows.

    `prediction` is what tokens are drawn from, which may be one text drawn as a whole; `laws` are the logits that were
    predicted for single positions.
    """

    process: Any  # duck-typed, as in a model; the sampler's `processes` say which
    x: Int[Tensor, "b l"]
    prediction: Prediction
    laws: Float[Tensor, "b l v"]
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
    stream: TokenStream, times: Float[Tensor, " n"], *, rng: Rng, move: Callable[[Turn], Tensor] = Turn.reverse
) -> Iterator[Step]:
    """Steps back along `times`. `move` gives the state at s."""
    process, denoiser, batch = stream.process, stream.denoiser, stream.batch
    laws = torch.zeros(*stream.x.shape, process.vocab, device=stream.x.device)
    logits = laws  # what is drawn from; another tensor where texts are drawn as a whole
    stale = torch.ones(len(stream.x), dtype=torch.bool, device=stream.x.device)
    yield stream.step(0, 1.0)
    for i in range(stream.steps):
        x, draws = stream.x, rng.fork(i)
        t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
        rows = (stale & stream.open.any(-1)).nonzero()[:, 0]
        if len(rows):
            said = denoiser(x[rows], t[rows], batch=batch.select(rows))
            whole = said.drawn(draws.fork("whole").select(rows))
            laws[rows] = said.logits
            if whole is not said:  # what is not shown is as good as a new draw: it is kept with the rest
                logits = laws.clone() if logits is laws else logits
                logits[rows] = whole.logits
        xs = move(Turn(process, x, Prediction(logits), laws, t, s, batch, stream.confidence, draws))
        stream.move(xs, s, laws, draws)
        stale = (stream.x != x).any(-1) if denoiser.time_free else torch.ones_like(stale)
        yield stream.step(i + 1, float(times[i + 1]))
