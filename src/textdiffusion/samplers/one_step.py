"""The one-step family of Gaussian samplers, from DDIM over ancestral to renoising."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..model import Model
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from .projection import Clamped, Mode, projected
from .step import Request, Step, guided, steered


class OneStep:
    """Each step moves the state to a lower noise level with one network call (specs: continuous 4.1).

    `eta` = 0 is DDIM, the Euler step of the probability-flow ODE; 1 is ancestral (DDPM). `renoise` noises each
    prediction afresh, as simple-diffusion-lm, SSD-LM and TESS do. It corrects more, but its law is not the data's, not
    even in the limit of many steps and an ideal denoiser: it favours what is likely. The self-conditioning estimate is
    carried from step to step. Tokens are read from the prediction, never from the state. With `projection` the state
    moves towards a single token at each position, the likeliest or one drawn from the nucleus of `top_p`.

    The state is moved to a noise level `ahead` steps below the one that the next step takes it for (asymmetric time
    intervals: Analog Bits, algorithm 2, td). It keeps its size in the variance-preserving frame, where it is renamed.

    `clamp` moves the denoised state to the nearest token's from that t on (0: never): late in sampling it commits the
    model to words, from the start on (1) it costs diversity. `truncate` cuts the noise of a step to so many standard
    deviations (0: not at all).
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(
        self,
        eta: float = 0.0,
        renoise: bool = False,
        ahead: float = 0.0,
        projection: Mode = "none",
        top_p: float = 1.0,
        *,
        clamp: float = 0.0,
        truncate: float = 0.0,
    ) -> None:
        self.eta, self.renoise, self.ahead = eta, renoise, ahead
        self.projection, self.top_p = projection, top_p
        self.clamp, self.truncate = clamp, truncate

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text; the last prediction is made at the lowest noise level."""
        batch, process = request.batch, model.process
        denoiser = guided(model, request)
        x0 = model.codec.encode(batch.ids)
        free = batch.noised[..., None]
        x = torch.where(free, process.prior(x0, rng=rng.fork("prior")), x0)
        shares = torch.linspace(1.0, 0.0, request.steps, device=x.device)
        times = model.density.grid(shares)
        reached = model.density.grid((shares - self.ahead / max(1, request.steps - 1)).clamp(min=0.0))
        undecided = torch.where(batch.noised, model.codec.vocab, batch.ids)
        yield Step(0, request.steps, 1.0, undecided, batch.noised.logical_not().float(), x)
        estimate = None
        for i in range(request.steps):
            t = times[i].expand(len(x))
            prediction = denoiser(x, t, batch=batch, self_cond=estimate)
            if self.clamp and bool(times[i] <= self.clamp):
                prediction = Clamped(prediction)
            ids = prediction.best
            probs = prediction.probs.gather(-1, ids[..., None])[..., 0]
            if i + 1 < request.steps:
                s, draws = reached[i + 1].expand(len(x)), rng.fork(i)
                target = projected(prediction, self.projection, self.top_p, rng=draws)
                xs = process.reverse(
                    x, target, t, s, rng=draws, eta=self.eta, renoise=self.renoise, limit=self.truncate
                )
                xs = steered(xs, s, request, draws)
                if self.ahead:
                    xs = xs * self._size(model, times[i + 1]) / self._size(model, reached[i + 1])
                x = torch.where(free, xs, x0)
            if model.denoiser.self_conditioning:
                estimate = prediction.mean
            left = 0.0 if i + 1 == request.steps else float(times[i + 1])
            shown = torch.where(batch.noised, ids, batch.ids)
            yield Step(i + 1, request.steps, left, shown, torch.where(batch.noised, probs, 1.0), x, i + 1.0)

    @staticmethod
    def _size(model: Model, t: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Root mean square of the coordinates of a noisy state: what it is divided by in the other frame."""
        return torch.sqrt(model.process.sigma(t) ** 2 + model.codec.scale**2)
