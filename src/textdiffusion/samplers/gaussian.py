"""What samplers of Gaussian processes share: settings, loop and state. They differ in the rule of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import NoiseTimes, PerPosition, PerRow, Tokens, Vectors
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.vector_predictions import PredictionWithMean
from .base import Request, Sampler, SamplingState, Step
from .projections import ClampedPrediction
from .time_grids import Learned, TimeGrid, start_fraction, tabulate


@dataclass(frozen=True, kw_only=True)
class GaussianSampler(Sampler, ABC):
    """A sampler that steps down a grid of noise levels.

    `grid`: the noise levels of the steps. `init_noise_scale`: standard deviation of the first noise, relative to the
    prior (no effect on a draft). `score_temperature` divides the score: below 1 text is safer and less diverse.
    `clamp`: for t at or below this value the predicted state is moved to the nearest token's (0: never); late in
    sampling this commits to words, from t = 1 it costs diversity. `patience`: a row is finished once its tokens, each
    with probability above 1/2, have not changed for this many steps (0: never).

    The last prediction is made at the lowest noise level. Tokens are read from predictions, never from the state.
    """

    processes = (GaussianProcess,)
    supports_t_start = True

    grid: TimeGrid = Learned()
    init_noise_scale: float = 1.0
    score_temperature: float = 1.0
    clamp: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, init_noise_scale=(0.0, 2.0), score_temperature=(0.1, 10.0), clamp=(0.0, 1.0))
        check_bounds(self, patience=(0, None))

    @abstractmethod
    def step(self, state: GaussianState, i: int, prediction: Prediction, *, rng: Rng) -> Vectors:
        """The state at the time of step i + 1, from the prediction at `state.t`."""

    def before_step(self, state: GaussianState, i: int, *, rng: Rng) -> None:
        """Prepares the state for step i: sets `state.t`."""
        state.t = state.time(i)

    @property
    def needs_entropy(self) -> bool:
        """The sampler uses the entropy of the last prediction."""
        return False

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text; fewer than requested if all rows finish early."""
        state, target, total = GaussianState(model, request, self, rng), request.batch.target_mask, request.steps
        tokens = torch.where(target, model.codec.vocab_size, request.batch.tokens)
        confidence, x = target.logical_not().float(), state.x
        times: list[float] = state.times.tolist()  # read once: a step does not wait for the device to report its time
        yield Step(0, total, request.t_start, tokens, confidence, x)
        for i in range(total):
            step_rng, is_last = state.rng.fork(i), i + 1 == total
            self.before_step(state, i, rng=step_rng)
            prediction = state.predict(state.x, state.t)
            argmax = prediction.argmax
            probs = prediction.probs.gather(-1, argmax[..., None])[..., 0]
            if not is_last:
                xs = self.step(state, i, prediction, rng=step_rng)
                state.x = state.apply_condition(state.apply_guides(xs, state.time(i + 1), step_rng))
            rows, target = state.row_numbers, state.batch.target_mask
            tokens = tokens.index_copy(0, rows, torch.where(target, argmax, state.batch.tokens))
            confidence = confidence.index_copy(0, rows, torch.where(target, probs, 1.0))
            x = x.index_copy(0, rows, state.x)
            if self.patience:
                state.drop_rows(state.converged(argmax, probs))
                is_last = is_last or not len(state.row_numbers)
            t = 0.0 if is_last else times[i + 1]
            yield Step(total if is_last else i + 1, total, t, tokens, confidence, x, state.nfe)
            if is_last:
                return


@dataclass(frozen=True, kw_only=True)
class ChurnSampler(GaussianSampler, ABC):
    """A Gaussian sampler that can raise the noise before each step (Karras et al. 2022, algorithm 2).

    `s_churn` multiplies the noise level by 1 + min(s_churn / steps, sqrt(2) - 1). With `churn_entropy` only at
    positions whose last prediction had an entropy above this many nats; the samples then do not follow the data
    distribution, not even in the limit: noise drives states from where it is added towards what is certain.
    """

    s_churn: float = 0.0
    churn_entropy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, s_churn=(0.0, None), churn_entropy=(0.0, None))
        if self.churn_entropy and not self.s_churn:
            raise UserError(f"sampler.churn_entropy={self.churn_entropy:g} has no effect without sampler.s_churn.")

    @property
    def needs_entropy(self) -> bool:
        return bool(self.churn_entropy)

    def before_step(self, state: GaussianState, i: int, *, rng: Rng) -> None:
        """Raises the noise of every step but the first and the last, at most to that of the prior."""
        super().before_step(state, i, rng=rng)
        if not self.s_churn or i == 0 or i + 1 == state.steps:
            return
        sigma, sigma_max = state.process.sigma(state.t), state.process.sigma(state.x.new_ones(1))
        raised = torch.minimum(sigma * (1.0 + min(self.s_churn / state.steps, 2.0**0.5 - 1.0)), sigma_max)
        if state.entropy is not None:
            sigma = sigma[:, None]
            raised = torch.where(state.entropy > self.churn_entropy, raised[:, None], sigma)
        state.t = state.process.schedule.time(raised)
        std = torch.sqrt((raised**2 - sigma**2).clamp(min=0.0))
        std = std[..., None] if std.ndim == 2 else std[:, None, None]
        state.x = state.apply_condition(state.x + std * rng.fork("churn").normal(*state.x.shape[1:]))


class GaussianState(SamplingState):
    """The unfinished rows of a sampling run over vectors: their state `x` at time `t`.

    `self_cond` is the last estimate of the clean state, `entropy` that of the last prediction (None: not needed).
    `previous` is for multistep samplers: what the last step moved towards, and its time. `row_numbers` are the rows'
    numbers in the request. `times` are those at which the steps begin.
    """

    process: GaussianProcess

    def __init__(self, model: DiffusionModel, request: Request, sampler: GaussianSampler, rng: Rng) -> None:
        super().__init__(model, request)
        self.model, self.sampler, self.rng = model, sampler, rng
        self.curve = sampler.grid.curve(model)
        start = start_fraction(self.curve, request)
        self.fractions = torch.linspace(start, 0.0, self.steps, device=self.batch.tokens.device)
        self.times = tabulate(self.curve, self.fractions)
        self.x0 = model.codec.encode(self.batch.tokens)
        self.t = self.x0.new_full((len(self.x0),), request.t_start)
        if request.t_start < 1.0:
            noisy = self.process.add_noise(self.x0, self.t, rng=rng.fork("prior"))
            self.times[0] = request.t_start
        else:
            noisy = sampler.init_noise_scale * self.process.sample_prior(self.x0, rng=rng.fork("prior"))
        self.x = self.apply_condition(noisy)
        self.row_numbers = torch.arange(len(self.x), device=self.x.device)
        self.self_cond: Tensor | None = None
        self.entropy: Tensor | None = None
        self.previous: tuple[Tensor, Tensor] | None = None
        self._tokens = torch.full_like(self.batch.tokens, -1)
        self._unchanged_steps = torch.zeros_like(self.row_numbers)

    def apply_condition(self, x: Vectors) -> Vectors:
        """`x` with the clean states of the conditioning tokens put in."""
        return torch.where(self.batch.target_mask[..., None], x, self.x0)

    def time(self, i: int, offset: float = 0.0) -> PerRow:
        """The time at which step i begins, or that of `offset` steps later; the last is 0."""
        if not offset:
            return self.times[i].expand(len(self.x))
        fraction = (self.fractions[i, None] - offset * self.fractions[0] / max(1, self.steps - 1)).clamp(min=0.0)
        return self.curve(fraction).expand(len(self.x))

    def predict(self, x: Vectors, t: NoiseTimes) -> Prediction:
        """One network call, self-conditioned on the one before."""
        prediction = self.denoiser(x, t, batch=self.batch, self_cond=self.self_cond)
        if self.sampler.clamp and bool(t.max() <= self.sampler.clamp):
            prediction = ClampedPrediction(prediction)
        if self.model.denoiser.self_conditioning:
            self.self_cond = prediction.mean
        if self.sampler.needs_entropy:
            self.entropy = torch.special.entr(prediction.probs).sum(-1)
        return prediction

    def apply_temperature(self, prediction: Prediction, x: Vectors) -> Prediction:
        """The prediction with its mean moved along x0 - x, so that the score is divided by `score_temperature`."""
        temperature = self.sampler.score_temperature
        if temperature == 1.0:
            return prediction
        return PredictionWithMean(prediction.logits, x + (prediction.mean - x) / temperature, prediction.table)

    def converged(self, tokens: Tokens, probs: PerPosition) -> Bool[Tensor, " b"]:
        """The rows whose tokens have not changed for `patience` steps, each with probability above 1/2.

        Without the bound on the probability, rows of pure noise would count.
        """
        unchanged = (~self.batch.target_mask | ((tokens == self._tokens) & (probs > 0.5))).all(-1)
        self._tokens, self._unchanged_steps = tokens, torch.where(unchanged, self._unchanged_steps + 1, 0)
        return self._unchanged_steps >= self.sampler.patience

    def drop_rows(self, finished: Bool[Tensor, " b"]) -> None:
        """Removes finished rows, which then cost no more calls."""
        if not bool(finished.any()):
            return
        rows = (~finished).nonzero()[:, 0]
        self.batch, self.rng = self.batch.select(rows), self.rng.select(rows)
        for name in ("x", "x0", "t", "row_numbers", "self_cond", "entropy", "_tokens", "_unchanged_steps"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[rows])
        if self.previous is not None:
            x0, t = self.previous
            self.previous = x0[rows], t[rows]
