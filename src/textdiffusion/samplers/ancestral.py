"""Ancestral sampling of processes over token ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.densities import TimeDensity
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.process import TokenProcess
from ..diffusion.ratios import Graph, ReverseStep
from ..diffusion.uniform import UniformProcess
from .base import Request, Step
from .token_state import TokenState


@dataclass(frozen=True)
class StepContext:
    """A step of `stream` from t to s.

    `prediction` is what tokens are drawn from, which may be one text drawn as a whole; `laws` are the logits that were
    predicted for single positions.
    """

    stream: TokenState
    prediction: Prediction
    laws: Float[Tensor, "b l v"]
    t: Float[Tensor, " b"]
    s: Float[Tensor, " b"]
    rng: Rng


class Ancestral:
    """Steps back as the exact reverse process would (MDLM, section 3.3), on the density's grid of times.

    A network without a time input sees nothing new in a row that did not change, so its logits are kept row by row, and
    rows that are finished cost nothing. The last step leaves clean text by itself, as alpha(0) = 1: it draws every
    position that may still change from the prediction. Subclasses differ in `move`, or in `times`.
    """

    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def times(self, model: DiffusionModel, request: Request) -> Float[Tensor, " n"]:
        """From 1 to 0 in the steps of a request."""
        return timesteps(model.time_density, request)

    def step(self, turn: StepContext) -> Int[Tensor, "b l"]:
        """The state at s."""
        return turn.stream.process.reverse(turn.stream.x, turn.prediction, turn.t, turn.s, rng=turn.rng)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text."""
        yield from self.run(self.times(model, request), TokenState(model, request, rng=rng), rng=rng)

    def run(self, times: Float[Tensor, " n"], stream: TokenState, *, rng: Rng) -> Iterator[Step]:
        """Steps of a stream along `times`."""
        denoiser = stream.denoiser
        laws = torch.zeros(*stream.x.shape, stream.process.vocab_size, device=stream.x.device)
        logits = laws  # what is drawn from; another tensor where texts are drawn as a whole
        stale = torch.ones(len(stream.x), dtype=torch.bool, device=stream.x.device)
        yield stream.step(0, 1.0)
        for i in range(stream.steps):
            x, draws = stream.x, rng.fork(i)
            t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
            rows = (stale & stream.maskable.any(-1)).nonzero()[:, 0]
            if len(rows):
                said = denoiser(x[rows], t[rows], batch=stream.batch.select(rows))
                whole = said.sample_joint(draws.fork("whole").select(rows))
                laws[rows] = said.logits
                if whole is not said:  # what is not shown is as good as a new draw: it is kept with the rest
                    logits = laws.clone() if logits is laws else logits
                    logits[rows] = whole.logits
            stream.update(self.step(StepContext(stream, Prediction(logits), laws, t, s, draws)), s, laws, draws)
            stale = (stream.x != x).any(-1) if denoiser.time_independent else torch.ones_like(stale)
            yield stream.step(i + 1, float(times[i + 1]))


def timesteps(density: TimeDensity, request: Request) -> Float[Tensor, " n"]:
    """From 1 to 0 in the steps of a request, as many of each part as the density has there."""
    return density.sampling_times(torch.linspace(1.0, 0.0, request.steps + 1, device=request.batch.tokens.device))


class Euler:
    """Jumps at the reverse rates of the beginning of each step (SEDD, section 4.1).

    The last step draws every position that may still change from the prediction, which leaves no noise behind.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text, on the density's grid of times; one network call each."""
        stream, times = TokenState(model, request, rng=rng), timesteps(model.time_density, request)
        graph = model.process.graph
        yield stream.step(0, 1.0)
        for i in range(request.steps):
            x, draws = stream.x, rng.fork(i)
            t, s = times[i].expand(x.shape), times[i + 1].expand(x.shape)
            said = stream.denoiser(x, t[:, 0], batch=stream.batch)
            whole = said.sample_joint(draws.fork("whole"))
            if i + 1 < request.steps:
                jumps = self.step(graph, whole.log_score(graph, x, t), x, t, s)
            else:
                jumps = ReverseStep(stream.maskable.float(), whole.logits)
            stream.update(jumps.sample(x, rng=draws), s[:, 0], said.logits, draws)
            yield stream.step(i + 1, float(times[i + 1]))

    @staticmethod
    def step(
        graph: Graph, log_ratios: Tensor, xt: Tensor, t: Float[Tensor, "b l"], s: Float[Tensor, "b l"]
    ) -> ReverseStep:
        """The jumps from t to s."""
        return graph.euler(log_ratios, xt, t, s)


class Tweedie(Euler):
    """Steps that would be exact if positions were independent (Tweedie tau-leaping: SEDD, section 4.2)."""

    @staticmethod
    def step(
        graph: Graph, log_ratios: Tensor, xt: Tensor, t: Float[Tensor, "b l"], s: Float[Tensor, "b l"]
    ) -> ReverseStep:
        """The jumps from t to s."""
        return graph.tweedie(log_ratios, xt, t, s)
