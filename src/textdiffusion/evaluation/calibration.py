"""Calibration: one temperature per range of noise levels, fitted where it tightens the bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.memory import check_memory
from ..core.randomness import Rng
from ..core.types import Logits, Mask, PerPosition, PerRow, RowIndex, Tokens
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.ratios import Graph
from ..scoring.likelihood import PILOT_ROWS, RowEstimator, Windows, eval_mode, evaluate_rows, spaced_rows

_RANGE_BYTES = 64  # numbers of Python
CANDIDATES = (0.7, 0.8, 0.87, 0.93, 1.07, 1.15, 1.25, 1.4)


@dataclass(frozen=True)
class Calibration:
    """Temperatures by t: the first at t = 0, the last at t = 1, the others between `edges`. 1 changes nothing.

    A calibrated denoiser is another denoiser, so its bound remains a bound. `gain` is in nats per row of the text that
    the temperatures were fitted on.
    """

    edges: tuple[float, ...]
    temperatures: tuple[float, ...]
    gain: float = 0.0

    def apply(self, model: DiffusionModel) -> AbstractContextManager[None]:
        """Inside the context, `model` predicts with these temperatures."""
        return _use_denoiser(model, CalibratedDenoiser(model.denoiser, self))


@contextmanager
def _use_denoiser(model: DiffusionModel, denoiser: nn.Module) -> Iterator[None]:
    plain = model.denoiser
    model.denoiser = denoiser
    try:
        yield
    finally:
        model.denoiser = plain


def calibrate(
    model: DiffusionModel, windows: Windows, likelihood: Any, *, buckets: int = 8, seed: int = 0, batch_size: int = 64
) -> Calibration:
    """The temperatures that tighten the bound on `windows`, which should be text the model was trained on.

    Each is the best candidate for the rows with a noise level in its range, by the bound itself (for masks, their
    cross-entropy), and stays 1 unless it is better by more than two standard errors. All stay 1 unless together they
    are better under new draws too. The ranges are equal steps of the run's sampling times. The temperatures at t = 0
    and t = 1, which decoders and priors see, stay 1, except for an exact likelihood, which has no other t. Where each
    block of a row has its own noise level, one temperature is fitted for all.
    """
    check_memory(buckets * _RANGE_BYTES, f"Calibrating {buckets:,} ranges", "use fewer (--calibrate)")
    fractions = torch.arange(1, buckets, device=next(model.parameters()).device) / buckets
    inner = model.time_density.sampling_times(fractions)
    edges = (0.0, *inner.clamp(1e-6, 1.0 - 1e-6).tolist(), 1.0 - 2.0**-20)
    fitted = range(1) if likelihood.exact else range(1, buckets + 1)

    def constant(temperature: float) -> Calibration:
        return Calibration(edges, tuple(temperature if i in fitted else 1.0 for i in range(buckets + 2)))

    def try_all(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b k"]:
        """Per row: the range of its noise level, its nats, and its nats at every candidate temperature."""
        trial = CalibratedDenoiser(model.denoiser, constant(1.0), caching=True)
        columns = []
        for temperature in (1.0, *CANDIDATES):
            trial.calibration = constant(temperature)
            columns.append(_nats(trial, model, likelihood, batch, rng))
        assert trial.bucket is not None
        return torch.stack((trial.bucket.to(columns[0]), *columns), dim=-1)

    chosen = spaced_rows(len(windows), PILOT_ROWS)

    def evaluate(estimator: RowEstimator, number: int) -> Tensor:
        return evaluate_rows(estimator, model, windows, chosen, seed, "calibration", number, batch_size)

    with torch.no_grad(), eval_mode(model):
        bucket, before, *after = evaluate(try_all, 0).unbind(-1)
        temperatures = [1.0] * (buckets + 2)
        for i in fitted:
            rows = (bucket == i) | (bucket < 0)
            if int(rows.sum()) < 2:
                continue
            change = torch.stack(after)[:, rows] - before[rows]
            upper = change.mean(1) + 2.0 * change.std(1) / rows.sum() ** 0.5
            if float(upper.min()) < 0.0:
                temperatures[i] = CANDIDATES[int(upper.argmin())]
        calibration = Calibration(edges, tuple(temperatures))

        def compare(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b 2"]:
            denoisers = model.denoiser, CalibratedDenoiser(model.denoiser, calibration)
            return torch.stack([_nats(denoiser, model, likelihood, batch, rng) for denoiser in denoisers], dim=-1)

        before, now = evaluate(compare, 1).mean(0).tolist()
    return Calibration(edges, calibration.temperatures, before - now) if now < before else constant(1.0)


def _nats(denoiser: nn.Module, model: DiffusionModel, likelihood: Any, batch: Batch, rng: Rng) -> PerRow:
    with _use_denoiser(model, denoiser):
        return likelihood(model, batch, rng=rng)


class CalibratedDenoiser(nn.Module):
    """A denoiser whose logits are divided by the temperature of the noise level.

    With `caching` it stores its predictions without self-conditioning, for all temperatures to start from, and in
    `bucket` the range of each row's last noise level (-1: several).
    """

    time_independent = False

    def __init__(self, plain: Any, calibration: Calibration, *, caching: bool = False) -> None:
        super().__init__()
        self.plain, self.calibration, self.caching = plain, calibration, caching
        self.self_conditioning = plain.self_conditioning
        self.bucket: RowIndex | None = None
        self._predictions: list[tuple[Tensor, Tensor, Prediction]] = []

    @property
    def backbone(self) -> Any:
        """The plain denoiser's backbone."""
        return self.plain.backbone

    def forward(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction:
        """The plain prediction at the temperature of t."""
        return self._tempered(self._predict(xt, t, batch, self_cond), t)

    def predict_next(self, xt: Tokens, batch: Batch) -> Prediction:
        """The plain prediction of the next token at the temperature of t = 0, for denoisers that have one."""
        return self._tempered(self.plain.predict_next(xt, batch), xt.new_zeros(len(xt), dtype=torch.float))

    def _tempered(self, prediction: Prediction, t: Float[Tensor, "b *l"]) -> Prediction:
        bucket = torch.bucketize(t, torch.tensor(self.calibration.edges, device=t.device))
        if self.caching:
            row = bucket if bucket.ndim == 1 else torch.full_like(bucket[:, 0], -1)
            inside = (row != 0) & (row != len(self.calibration.edges))
            self.bucket = row if self.bucket is None else torch.where(inside, row, self.bucket)
        temperature = torch.tensor(self.calibration.temperatures, device=t.device)[bucket]
        if bool((temperature == 1.0).all()):
            return prediction
        return TemperedPrediction(prediction, temperature[..., None] if t.ndim == 2 else temperature[:, None, None])

    def _predict(self, xt: Tensor, t: Tensor, batch: Batch, self_cond: Tensor | None) -> Prediction:
        if not self.caching or self_cond is not None:
            return self.plain(xt, t, batch=batch, self_cond=self_cond)
        for cached_xt, cached_t, prediction in self._predictions:
            if torch.equal(cached_xt, xt) and torch.equal(cached_t, t):
                return prediction
        prediction = self.plain(xt, t, batch=batch)
        self._predictions.append((xt, t, prediction))
        return prediction


class TemperedPrediction(Prediction):
    """A prediction with its logits divided by a temperature per row or position; unchanged where that is 1."""

    def __init__(self, plain: Prediction, temperature: Float[Tensor, "b #l 1"]) -> None:
        super().__init__(plain.logits / temperature, plain.table)
        self.plain, self.unchanged = plain, temperature == 1.0

    @property
    def mean(self) -> Float[Tensor, "b l d"]:
        return torch.where(self.unchanged, self.plain.mean, super().mean)

    def nll(self, tokens: Tokens, where: Mask) -> PerPosition:
        return torch.where(self.unchanged[..., 0], self.plain.nll(tokens, where), super().nll(tokens, where))

    def log_score(self, graph: Graph, xt: Tokens, t: PerPosition) -> Logits:
        return torch.where(self.unchanged, self.plain.log_score(graph, xt, t), super().log_score(graph, xt, t))

    def score_entropy(self, graph: Graph, tokens: Tokens, where: Mask, xt: Tokens, t: PerPosition) -> PerPosition:
        plain = self.plain.score_entropy(graph, tokens, where, xt, t)
        return torch.where(self.unchanged[..., 0], plain, super().score_entropy(graph, tokens, where, xt, t))
