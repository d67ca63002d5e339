"""Calibration: a temperature for each range of noise levels, fitted where it tightens the bound and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.ratios import Graph
from ..scoring.likelihood import PILOT_ROWS, Windows, eval_mode, evaluate_rows, spaced_rows

TRIED = (0.7, 0.8, 0.87, 0.93, 1.07, 1.15, 1.25, 1.4)


@dataclass(frozen=True)
class Calibration:
    """Temperatures by t: the first at t = 0, the last at t = 1, the others between `edges`. 1 leaves all as it is.

    The result is another denoiser, so the bound stays one. `gain` is in nats per row of the text it was fitted on.
    """

    edges: tuple[float, ...]
    temperatures: tuple[float, ...]
    gain: float = 0.0

    def applied(self, model: DiffusionModel) -> AbstractContextManager[None]:
        """Inside, `model` predicts with these temperatures."""
        return _predicting(model, Calibrated(model.denoiser, self))


@contextmanager
def _predicting(model: DiffusionModel, denoiser: nn.Module) -> Iterator[None]:
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

    Each is the best of a few for the rows that were drawn in its range of noise levels, by the bound itself (for masks
    that is their cross-entropy), and stays 1 unless it is better by more than two standard errors. All stay 1 unless
    together they are better under fresh draws too. Ranges are equal steps of the run's sampling grid; t = 0 and t = 1
    themselves, which decoders and priors see, are left alone, but for an exact likelihood, which has no other t.
    Where each block of a row has its own noise level, one temperature is fitted for all.
    """
    inner = model.time_density.sampling_times(
        torch.arange(1, buckets, device=next(model.parameters()).device) / buckets
    )
    edges = (0.0, *inner.clamp(1e-6, 1.0 - 1e-6).tolist(), 1.0 - 2.0**-20)
    plain, fitted = (1.0,) * (buckets + 2), range(1) if likelihood.exact else range(1, buckets + 1)

    def with_(temperature: float) -> Calibration:
        return Calibration(edges, tuple(temperature if i in fitted else 1.0 for i in range(buckets + 2)))

    def tried(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b k"]:
        """The range of each row's noise level, its nats, and its nats at every temperature."""
        trial = Calibrated(model.denoiser, with_(1.0), keep=True)
        columns = []
        for temperature in (1.0, *TRIED):
            trial.calibration = with_(temperature)
            columns.append(_nats(trial, model, likelihood, batch, rng))
        assert trial.seen is not None
        return torch.stack((trial.seen.to(columns[0]), *columns), dim=-1)

    chosen = spaced_rows(len(windows), PILOT_ROWS)
    with torch.no_grad(), eval_mode(model):
        where, before, *after = evaluate_rows(tried, model, windows, chosen, seed, "calibration", 0, batch_size).unbind(
            -1
        )
        temperatures = list(plain)
        for i in fitted:
            rows = (where == i) | (where < 0)
            if int(rows.sum()) < 2:
                continue
            change = torch.stack(after)[:, rows] - before[rows]
            significant = change.mean(1) + 2.0 * change.std(1) / rows.sum() ** 0.5
            if float(significant.min()) < 0.0:
                temperatures[i] = TRIED[int(significant.argmin())]
        found = Calibration(edges, tuple(temperatures))

        def both(model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b 2"]:
            denoisers = model.denoiser, Calibrated(model.denoiser, found)
            return torch.stack([_nats(denoiser, model, likelihood, batch, rng) for denoiser in denoisers], dim=-1)

        before, now = evaluate_rows(both, model, windows, chosen, seed, "calibration", 1, batch_size).mean(0).tolist()
    return Calibration(edges, found.temperatures, before - now) if now < before else with_(1.0)


def _nats(denoiser: nn.Module, model: DiffusionModel, likelihood: Any, batch: Batch, rng: Rng) -> Float[Tensor, " b"]:
    with _predicting(model, denoiser):
        return likelihood(model, batch, rng=rng)


class Calibrated(nn.Module):
    """A denoiser whose logits are divided by the temperature of the noise level.

    With `keep` it remembers its last first pass, which other temperatures start from as well, and in `seen` the range
    that each row was last drawn in (-1: several).
    """

    time_independent = False

    def __init__(self, plain: Any, calibration: Calibration, *, keep: bool = False) -> None:
        super().__init__()
        self.plain, self.calibration, self.keep = plain, calibration, keep
        self.self_conditioning = plain.self_conditioning
        self.seen: Int[Tensor, " b"] | None = None
        self._kept: list[tuple[Tensor, Tensor, Prediction]] = []

    @property
    def backbone(self) -> Any:
        """That of the plain denoiser."""
        return self.plain.backbone

    def forward(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction:
        """The plain prediction, tempered."""
        place = torch.bucketize(t, torch.tensor(self.calibration.edges, device=t.device))
        prediction = self._predicted(xt, t, batch, self_cond)
        if self.keep:
            row = place if place.ndim == 1 else torch.full_like(place[:, 0], -1)
            inside = (row != 0) & (row != len(self.calibration.edges))
            self.seen = row if self.seen is None else torch.where(inside, row, self.seen)
        temperature = torch.tensor(self.calibration.temperatures, device=t.device)[place]
        if bool((temperature == 1.0).all()):
            return prediction
        return Tempered(prediction, temperature[..., None] if t.ndim == 2 else temperature[:, None, None])

    def _predicted(self, xt: Tensor, t: Tensor, batch: Batch, self_cond: Tensor | None) -> Prediction:
        if not self.keep or self_cond is not None:
            return self.plain(xt, t, batch=batch, self_cond=self_cond)
        for old_xt, old_t, prediction in self._kept:
            if torch.equal(old_xt, xt) and torch.equal(old_t, t):
                return prediction
        self._kept.append((xt, t, self.plain(xt, t, batch=batch)))
        return self._kept[-1][-1]


class Tempered(Prediction):
    """A prediction with its logits divided by a temperature of each row or position; where that is 1, the very same."""

    def __init__(self, plain: Prediction, temperature: Float[Tensor, "b #l 1"]) -> None:
        super().__init__(plain.logits / temperature, plain.table)
        self.plain, self.same = plain, temperature == 1.0

    @property
    def mean(self) -> Float[Tensor, "b l d"]:
        return torch.where(self.same, self.plain.mean, super().mean)

    def nll(self, tokens: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        return torch.where(self.same[..., 0], self.plain.nll(tokens, where), super().nll(tokens, where))

    def log_score(self, graph: Graph, xt: Int[Tensor, "b l"], t: Float[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        return torch.where(self.same, self.plain.log_score(graph, xt, t), super().log_score(graph, xt, t))

    def score_entropy(
        self,
        graph: Graph,
        tokens: Int[Tensor, "b l"],
        where: Bool[Tensor, "b l"],
        xt: Int[Tensor, "b l"],
        t: Float[Tensor, "b l"],
    ) -> Float[Tensor, "b l"]:
        own = self.plain.score_entropy(graph, tokens, where, xt, t)
        return torch.where(self.same[..., 0], own, super().score_entropy(graph, tokens, where, xt, t))
