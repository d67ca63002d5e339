"""Samplers that follow the reverse process of token ids on a grid of times: Ancestral, Euler, Tweedie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Logits, Mask, PerPosition, Times, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.densities import TimeDensity
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import MixedScorePrediction, Prediction
from ..diffusion.process import TokenProcess
from ..diffusion.ratios import Graph, ReverseStep
from ..diffusion.token_noise import TokenNoiseProcess
from ..diffusion.uniform import UniformProcess
from .base import Request, Sampler, Step
from .time_grids import start_fraction
from .token_state import TokenState


@dataclass(frozen=True, kw_only=True)
class Ancestral(Sampler):
    """Ancestral sampling: every step draws from the reverse process p(x_s | x_t) (MDLM, section 3.3).

    The default for absorbing and uniform noise. Samples the data distribution in the limit of many steps, if the
    denoiser is ideal; positions that change in the same step are drawn independently. The last step draws every
    remaining noisy position from the prediction, because alpha(0) = 1. A denoiser that ignores time is called only for
    rows that changed; finished rows cost nothing. Subclasses override `step` or `times`.

    With `patience`, a row takes its likeliest tokens and ends once these have been the same in so many predictions
    after the first, all of a mean entropy of at most `patience_entropy` nats at the positions that may change (0:
    never). That saves calls, above all under uniform noise, and is biased to the likely: what the last predictions
    still doubted is not drawn.
    """

    processes = (TokenProcess,)
    supports_t_start = True

    patience: int = 0
    patience_entropy: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, patience=(0, None), patience_entropy=(0.0, None))

    def times(self, model: DiffusionModel, request: Request) -> Float[Tensor, " n"]:
        """The times of the steps, from the request's `t_start` to 0."""
        return timesteps(model.time_density, request)

    def step(self, state: TokenState, prediction: Prediction, t: Times, s: Times, *, rng: Rng) -> Tokens:
        """A draw of x_s, with tokens drawn from `prediction`."""
        return state.process.reverse(state.x, prediction, t, s, rng=rng)

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        yield from self.run(self.times(model, request), TokenState(model, request, rng=rng), rng=rng)

    def run(self, times: Float[Tensor, " n"], state: TokenState, *, rng: Rng) -> Iterator[Step]:
        """Steps of `state` along `times`."""
        denoiser = state.denoiser
        state.logits = logits = torch.zeros(*state.x.shape, state.process.vocab_size, device=state.x.device)
        joint = logits  # the logits that tokens are drawn from; a separate tensor once texts are sampled jointly
        log_score: Logits | None = None  # of predictions that have one of their own
        stale = torch.ones(len(state.x), dtype=torch.bool, device=state.x.device)
        ended = torch.zeros_like(stale)
        settling = Settling(state.x)
        yield state.as_step(0, state.t_start)
        for i in range(state.steps):
            x, step_rng = state.x, rng.fork(i)
            t, s = times[i].expand(len(x)), times[i + 1].expand(len(x))
            rows = (stale & state.maskable.any(-1) & ~ended).nonzero()[:, 0]
            if len(rows):
                prediction = denoiser(x[rows], t[rows], batch=state.batch.select(rows))
                sampled = prediction.sample_joint(step_rng.fork("whole").select(rows))
                logits[rows] = prediction.logits
                log_score = _own_score(prediction, state, rows, t)
                if sampled is not prediction:  # tokens that stay hidden may be reused: they are as good as a new draw
                    joint = logits.clone() if joint is logits else joint
                    joint[rows] = sampled.logits
            sampled = Prediction(joint) if log_score is None else MixedScorePrediction(joint, log_score)
            xs = self.step(state, sampled, t, s, rng=step_rng)
            if self.patience:
                steps = settling.steps(logits[rows], rows, state.maskable[rows], self.patience_entropy)
                ended[rows] = steps >= self.patience
                xs = torch.where(ended[:, None] & state.maskable, joint.argmax(-1), xs)
            state.update(xs, s, logits, step_rng)
            stale = (state.x != x).any(-1) if denoiser.time_independent else torch.ones_like(stale)
            yield state.as_step(i + 1, float(times[i + 1]))


class Settling:
    """For how many predictions each row's have been certain and the same."""

    def __init__(self, x: Tokens) -> None:
        self._likeliest, self._steps = torch.full_like(x, -1), torch.zeros(len(x), dtype=torch.long, device=x.device)

    def steps(self, logits: Logits, rows: Int[Tensor, " b"], where: Mask, max_entropy: float) -> Int[Tensor, " b"]:
        """The number of `rows` after one more prediction of them, at the positions `where`."""
        likeliest = logits.argmax(-1)
        entropy = torch.special.entr(logits.softmax(-1)).sum(-1) * where
        certain = entropy.sum(-1) <= max_entropy * where.sum(-1)
        same = ((likeliest == self._likeliest[rows]) | ~where).all(-1)
        self._steps[rows] = torch.where(same & certain, self._steps[rows] + 1, 0)
        self._likeliest[rows] = likeliest
        return self._steps[rows]


def _own_score(prediction: Prediction, state: TokenState, rows: Int[Tensor, " n"], t: Times) -> Logits | None:
    """The log score of all rows, for a prediction of `rows` with a score of its own under noise of tokens."""
    if not (prediction.has_own_score and isinstance(state.process, TokenNoiseProcess)):
        return None
    x = state.x[rows]
    log_score = torch.zeros(*state.x.shape, state.process.vocab_size, device=x.device)
    log_score[rows] = prediction.log_score(state.process.graph, x, t[rows, None].expand(x.shape))
    return log_score


def timesteps(density: TimeDensity, request: Request) -> Float[Tensor, " n"]:
    """The times of a request's steps, from its `t_start` to 0: quantiles of the time density."""
    start = start_fraction(density.sampling_times, request)
    times = density.sampling_times(torch.linspace(start, 0.0, request.steps + 1, device=request.batch.tokens.device))
    if request.t_start < 1.0:
        times[0] = request.t_start
    return times


@dataclass(frozen=True, kw_only=True)
class Euler(Sampler):
    """Euler steps along the reverse rates, which are held fixed during each step (SEDD, section 4.1).

    For models of absorbing or uniform noise, and the baseline for `tweedie`. Samples the data distribution in the limit
    of many steps, if the denoiser is ideal. The last step draws every remaining noisy position from the prediction.
    """

    processes = (AbsorbingProcess, UniformProcess)
    supports_t_start = True

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        state, times = TokenState(model, request, rng=rng), timesteps(model.time_density, request)
        graph = model.process.graph
        yield state.as_step(0, state.t_start)
        for i in range(request.steps):
            x, step_rng = state.x, rng.fork(i)
            t, s = times[i].expand(x.shape), times[i + 1].expand(x.shape)
            prediction = state.denoiser(x, t[:, 0], batch=state.batch)
            sampled = prediction.sample_joint(step_rng.fork("whole"))
            if i + 1 < request.steps:
                jumps = self.step(graph, sampled.log_score(graph, x, t), x, t, s)
            else:
                jumps = ReverseStep(state.maskable.float(), sampled.logits)
            state.update(jumps.sample(x, rng=step_rng), s[:, 0], prediction.logits, step_rng)
            yield state.as_step(i + 1, float(times[i + 1]))

    def step(self, graph: Graph, log_score: Logits, xt: Tokens, t: PerPosition, s: PerPosition) -> ReverseStep:
        """The jumps from t to s."""
        return graph.euler(log_score, xt, t, s)


@dataclass(frozen=True, kw_only=True)
class Tweedie(Euler):
    """Tweedie tau-leaping: each step is exact for one position given the others (SEDD, section 4.2).

    For the same models as `euler`, and usually more accurate in few steps. Samples the data distribution in the limit
    of many steps, if the denoiser is ideal; the only error is that positions jump independently within a step.
    """

    def step(self, graph: Graph, log_score: Logits, xt: Tokens, t: PerPosition, s: PerPosition) -> ReverseStep:
        return graph.tweedie(log_score, xt, t, s)
