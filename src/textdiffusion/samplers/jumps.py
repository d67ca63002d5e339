"""Samplers that follow ratios of probabilities: Euler steps, and steps that are exact for each position (SEDD)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..model import Model
from ..processes.absorbing import AbsorbingProcess
from ..processes.graphs import Graph, Jumps
from ..processes.uniform import UniformProcess
from ..randomness import Rng
from .ancestral import even_times
from .step import Request, Step
from .token_stream import TokenStream


class Euler:
    """Jumps at the reverse rates of the beginning of each step (SEDD, section 4.1).

    The last step draws every position that may still change from the prediction, which leaves no noise behind.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text, on the density's grid of times; one network call each."""
        stream, times = TokenStream(model, request, rng=rng), even_times(model.density, request)
        graph = model.process.graph
        yield stream.step(0, 1.0)
        for i in range(request.steps):
            x, draws = stream.x, rng.fork(i)
            t, s = times[i].expand(x.shape), times[i + 1].expand(x.shape)
            said = stream.denoiser(x, t[:, 0], batch=stream.batch)
            whole = said.drawn(draws.fork("whole"))
            if i + 1 < request.steps:
                jumps = self.step(graph, whole.log_ratios(graph, x, t), x, t, s)
            else:
                jumps = Jumps(stream.open.float(), whole.logits)
            stream.move(jumps.draw(x, rng=draws), s[:, 0], said.logits, draws)
            yield stream.step(i + 1, float(times[i + 1]))

    @staticmethod
    def step(graph: Graph, log_ratios: Tensor, xt: Tensor, t: Float[Tensor, "b l"], s: Float[Tensor, "b l"]) -> Jumps:
        """The jumps from t to s."""
        return graph.euler(log_ratios, xt, t, s)


class Analytic(Euler):
    """Steps that would be exact if positions were independent (Tweedie tau-leaping: SEDD, section 4.2)."""

    @staticmethod
    def step(graph: Graph, log_ratios: Tensor, xt: Tensor, t: Float[Tensor, "b l"], s: Float[Tensor, "b l"]) -> Jumps:
        """The jumps from t to s."""
        return graph.tweedie(log_ratios, xt, t, s)
