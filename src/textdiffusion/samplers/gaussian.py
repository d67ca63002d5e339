"""The way from noise to text that all Gaussian samplers share. They differ in the rule of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction, PredictionWithMean, one_hot_logits
from .base import Request, SamplingState, Step
from .time_grids import GridName, grid


@dataclass(frozen=True)
class Path:
    """What every Gaussian sampler can do beside its steps (specs: continuous 4.1).

    `grid` and `rho`: the noise levels of the steps, see `grids`. `start`: the first noise, in standard deviations of
    the prior. `score_temperature`: the score is divided by it, so below 1 text is safer and less diverse. `clamp`: from
    that t on the denoised state is moved to the nearest token's, which late in sampling commits the model to words, and
    from t = 1 on costs diversity (0: never). `patience`: a row is done when its tokens, each with a probability above a
    half, have not changed for so many steps (0: never); without the half a row of pure noise would be done at once.

    `churn` raises the noise before each step by min(churn / steps, sqrt(2) - 1) of itself (Karras et al. 2022,
    algorithm 2). With a `gate` only at positions whose last prediction had an entropy above so many nats; their law is
    then not the data's, not even in the limit: noise drives states away from where it is put, to what is certain.
    """

    grid: GridName = "trained"
    rho: float = 7.0
    init_noise_scale: float = 1.0
    score_temperature: float = 1.0
    clamp: float = 0.0
    patience: int = 0
    s_churn: float = 0.0
    churn_entropy: float = 0.0


class GaussianState(SamplingState):
    """Rows that are not done: where they stand, and what the steps so far have left behind.

    `x` is their state at `t`. `before` is what the last step went to, and from what t (None: there was none).
    `rows` are their places in the request.
    """

    process: GaussianProcess

    def __init__(self, model: DiffusionModel, request: Request, path: Path, rng: Rng) -> None:
        super().__init__(model, request)
        self.model, self.path, self.rng = model, path, rng
        self.shares = torch.linspace(1.0, 0.0, self.steps, device=self.batch.tokens.device)
        self.x0 = model.codec.encode(self.batch.tokens)
        self.x = self.apply_condition(path.init_noise_scale * self.process.sample_prior(self.x0, rng=rng.fork("prior")))
        self.t = self.x.new_ones(len(self.x))
        self.row_numbers = torch.arange(len(self.x), device=self.x.device)
        self.estimate: Tensor | None = None
        self.before: tuple[Tensor, Tensor] | None = None
        self._entropy: Tensor | None = None
        self._ids, self._same = torch.full_like(self.batch.tokens, -1), torch.zeros_like(self.row_numbers)

    def apply_condition(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """`x` with the clean state where tokens are given."""
        return torch.where(self.batch.target_mask[..., None], x, self.x0)

    def time_at(self, number: int, ahead: float = 0.0) -> Float[Tensor, " b"]:
        """The time that a step begins at, or one so many steps ahead of it; the last is 0."""
        share = (self.shares[number] - ahead / max(1, self.steps - 1)).clamp(min=0.0)
        return grid(self.path.grid, self.path.rho, self.model, share).expand(len(self.x))

    def predict(self, x: Float[Tensor, "b l d"], t: Float[Tensor, "b *l"]) -> Prediction:
        """One network call, shown the estimate of the one before."""
        prediction = self.denoiser(x, t, batch=self.batch, self_cond=self.estimate)
        if self.path.clamp and bool(t.max() <= self.path.clamp):
            prediction = Clamped(prediction)
        if self.model.denoiser.self_conditioning:
            self.estimate = prediction.mean
        if self.path.churn_entropy:
            self._entropy = torch.special.entr(prediction.probs).sum(-1)
        return prediction

    def target(self, prediction: Prediction, x: Float[Tensor, "b l d"]) -> Prediction:
        """What a step goes to: moved on from the state, which divides the score by a temperature."""
        temperature = self.path.score_temperature
        if temperature == 1.0:
            return prediction
        return PredictionWithMean(prediction.logits, x + (prediction.mean - x) / temperature, prediction.table)

    def churn(self, number: int, rng: Rng) -> None:
        """Goes back up to more noise, but not beyond that of the prior."""
        self.t = self.time_at(number)
        if not self.path.s_churn or number == 0 or number + 1 == self.steps:
            return
        now, most = self.process.sigma(self.t), self.process.sigma(self.x.new_ones(()))
        raised = torch.minimum(now * (1.0 + min(self.path.s_churn / self.steps, 2.0**0.5 - 1.0)), most)
        if self._entropy is not None:
            now = now[:, None]
            raised = torch.where(self._entropy > self.path.churn_entropy, raised[:, None], now)
        self.t = self.process.schedule.time(raised)
        noise = torch.sqrt((raised**2 - now**2).clamp(min=0.0))
        noise = noise[..., None] if noise.ndim == 2 else noise[:, None, None]
        self.x = self.apply_condition(self.x + noise * rng.fork("churn").normal(*self.x.shape[1:]))

    def converged(self, ids: Int[Tensor, "b l"], probs: Float[Tensor, "b l"]) -> Bool[Tensor, " b"]:
        """The rows whose tokens have stayed the same for long enough."""
        same = (~self.batch.target_mask | ((ids == self._ids) & (probs > 0.5))).all(-1)
        self._ids, self._same = ids, torch.where(same, self._same + 1, 0)
        return self._same >= self.path.patience

    def drop_rows(self, done: Bool[Tensor, " b"]) -> None:
        """Rows that are done move no more, and cost no more calls."""
        if not bool(done.any()):
            return
        keep = (~done).nonzero()[:, 0]
        self.batch, self.rng = self.batch.select(keep), self.rng.select(keep)
        for name in ("x", "x0", "t", "row_numbers", "estimate", "_entropy", "_ids", "_same"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[keep])
        if self.before is not None:
            mean, t = self.before
            self.before = mean[keep], t[keep]


class GaussianSampler(ABC):
    """Steps down a grid of noise levels, from noise to text. The last prediction is made at the lowest level.

    The self-conditioning estimate is carried from call to call. Tokens are read from the prediction, never from the
    state.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path()

    @abstractmethod
    def step(self, walk: GaussianState, number: int, prediction: Prediction, *, rng: Rng) -> Float[Tensor, "b l d"]:
        """The state of `walk` at the next noise level, from the prediction at the present one."""

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from noise to text, fewer where all rows are done before."""
        walk, noised, total = GaussianState(model, request, self.path, rng), request.batch.target_mask, request.steps
        shown = torch.where(noised, model.codec.vocab_size, request.batch.tokens)
        sure, state = noised.logical_not().float(), walk.x
        yield Step(0, total, 1.0, shown, sure, state)
        for i in range(total):
            draws, last = walk.rng.fork(i), i + 1 == total
            walk.churn(i, draws)
            prediction = walk.predict(walk.x, walk.t)
            ids = prediction.argmax
            probs = prediction.probs.gather(-1, ids[..., None])[..., 0]
            if not last:
                xs = self.step(walk, i, prediction, rng=draws)
                walk.x = walk.apply_condition(walk.apply_guides(xs, walk.time_at(i + 1), draws))
            rows, free = walk.row_numbers, walk.batch.target_mask
            shown = shown.index_copy(0, rows, torch.where(free, ids, walk.batch.tokens))
            sure = sure.index_copy(0, rows, torch.where(free, probs, 1.0))
            state = state.index_copy(0, rows, walk.x)
            if self.path.patience:
                walk.drop_rows(walk.converged(ids, probs))
                last = last or not len(walk.row_numbers)
            left = 0.0 if last else float(walk.time_at(i + 1)[0])
            yield Step(total if last else i + 1, total, left, shown, sure, state, walk.nfe)
            if last:
                return


Mode = Literal["none", "greedy", "sample"]


class Clamped(PredictionWithMean):
    """A prediction whose mean is moved to the nearest row of the table; its tokens stay (Diffusion-LM, section 4.2)."""

    def __init__(self, prediction: Prediction) -> None:
        table, mean = prediction.table, prediction.mean
        assert table is not None, "a state of token ids has no mean"
        nearest = (mean @ table.T - 0.5 * table.square().sum(-1)).argmax(-1)
        super().__init__(prediction.logits, table[nearest], table)
        self.before = prediction

    @property
    def argmax(self) -> Int[Tensor, "b l"]:
        return self.before.argmax

    def sample_joint(self, rng: Rng) -> Prediction:
        whole = self.before.sample_joint(rng)
        return self if whole is self.before else whole


def nucleus(probs: Float[Tensor, "*b v"], share: float) -> Float[Tensor, "*b v"]:
    """The smallest set of most likely tokens whose probabilities reach `share`, renormalised (top-p)."""
    ordered, index = probs.sort(-1, descending=True)
    kept = ordered.cumsum(-1) - ordered < share  # what stands before a token decides whether it is still needed
    ordered = torch.where(kept, ordered, 0.0)
    return torch.zeros_like(probs).scatter(-1, index, ordered / ordered.sum(-1, keepdim=True))


def projected(prediction: Prediction, mode: Mode, top_p: float, *, rng: Rng) -> Prediction:
    """The prediction made certain of one token: the likeliest, or one drawn from its nucleus (SSD-LM, section 3.3).

    Raises UserError for a nucleus of a law that is drawn from as a whole, which has none.
    """
    if mode == "none":
        return prediction
    if mode == "greedy":
        ids = prediction.argmax
    else:
        draws = rng.fork("projection")
        whole = prediction.sample_joint(draws)
        if whole is not prediction and top_p < 1.0:
            raise UserError("sampler.top_p cannot be used with a word or pattern that every text has; use --top-p.")
        ids = draws.categorical(nucleus(whole.probs, top_p))
    return Prediction(one_hot_logits(ids, prediction.logits), prediction.table)
