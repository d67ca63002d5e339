"""Samplers that follow ratios of probabilities: Euler steps, and steps that are exact for each position (SEDD)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..model import Model
from ..processes.absorbing import AbsorbingProcess
from ..processes.graphs import Graph, Jumps
from ..processes.uniform import UniformProcess
from ..randomness import Rng
from .step import Request, Step, guided, shown_confidence, steered


class Euler:
    """Jumps at the reverse rates of the beginning of each step (SEDD, section 4.1).

    The last step draws every position that may still change from the prediction, which leaves no noise behind.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, UniformProcess)

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text, on the density's grid of times; one network call each."""
        batch, process = request.batch, model.process
        denoiser = guided(model, request)
        x = torch.where(batch.noised, process.prior(batch.ids, rng=rng.fork("prior")), batch.ids)
        times = model.density.grid(torch.linspace(1.0, 0.0, request.steps + 1, device=x.device))
        confidence = batch.noised.logical_not().float()
        yield Step(0, request.steps, 1.0, x, confidence, x)
        for i in range(request.steps):
            t, s = times[i].expand(x.shape), times[i + 1].expand(x.shape)
            draws = rng.fork(i)
            prediction = denoiser(x, t[:, 0], batch=batch).drawn(draws.fork("whole"))
            changing = process.changing(x) & batch.noised
            if i + 1 < request.steps:
                jumps = self.step(process.graph, prediction.log_ratios(process.graph, x, t), x, t, s)
            else:
                jumps = Jumps(changing.float(), prediction.logits)
            xs = jumps.draw(x, rng=draws)
            xs = torch.where(batch.noised, steered(xs, s[:, 0], request, draws), batch.ids)
            shown = changing & (xs < process.vocab)
            confidence = shown_confidence(torch.where(xs == x, confidence, 0.0), shown, xs, prediction.logits)
            x = xs
            yield Step(i + 1, request.steps, float(times[i + 1]), x, confidence, x, i + 1.0)

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
