"""Whether a loss is a bound: its expectation beside the entropy, on languages and denoisers that are known completely.

A loss bounds the likelihood if its mean over texts is at least their entropy, whatever the language and the denoiser.
One that goes below it promises a code shorter than any code can be, and its figures cannot be compared with others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import Part
from ..core.types import NoiseTimes, Tokens
from ..diffusion.model import Denoiser, DiffusionModel, PredictsNext
from ..diffusion.prediction import Prediction
from ..objectives.base import Loss
from .ideal_denoisers import ideal_models
from .known_language import KnownLanguage

BATCHES = 20
MAX_ERRORS = 5.0  # of the standard error; errors are themselves estimated from the batches
ROUNDING = 1e-4  # bits; networks and losses compute in float32

LossFunction = Callable[..., Tensor | Loss]
"""`loss(model, batch, *, rng)`: a likelihood, nats per row [b], or an objective, a `Loss` in nats per token."""

LANGUAGES: dict[str, KnownLanguage] = {
    "two equal bits": KnownLanguage.of({(0, 0): 0.5, (1, 1): 0.5}),
    "even": KnownLanguage.of({(i, j): 1.0 for i in range(3) for j in range(3)}),
    "correlated": KnownLanguage.random(vocab_size=3, length=3),
}
"""Two bits of which one says all: entropy 1 bit. All texts of 2 tokens out of 3. Random probabilities of 27 texts."""

DENOISERS = {"ideal": 1.0, "flattened": 0.25, "sharpened": 2.0}
"""The ideal denoiser, under which a tight bound is the entropy, and two worse ones: factors on its logits."""

CONDITIONS = {"nothing": False, "first token": True}
"""What is given, clean: the entropy is then that of the rest."""


class ScaledDenoiser(nn.Module):
    """An ideal denoiser with its logits multiplied by a factor: worse, and a function of the same inputs."""

    def __init__(self, ideal: Denoiser, factor: float) -> None:
        super().__init__()
        self.ideal, self.factor = ideal, factor
        self.time_independent, self.self_conditioning = ideal.time_independent, ideal.self_conditioning

    def forward(self, xt: Tensor, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        prediction = self.ideal(xt, t, batch=batch, self_cond=self_cond)
        return Prediction(prediction.logits * self.factor, prediction.table)

    def predict_next(self, xt: Tokens, batch: Batch) -> Prediction:
        """The same of the next token, for denoisers that predict it."""
        assert isinstance(self.ideal, PredictsNext)
        return Prediction(self.ideal.predict_next(xt, batch).logits * self.factor)


@dataclass(frozen=True)
class Comparison:
    """A loss beside the entropy, in bits per text.

    `quantity` is `likelihood`, or for an objective its total `loss` or its part `bound`. `process`, `language`,
    `denoiser` and `given` name the case. `excess` is the loss above the entropy, `error` its standard error.
    """

    quantity: str
    process: str
    language: str
    denoiser: str
    given: str
    entropy: float
    excess: float
    error: float

    @property
    def loss(self) -> float:
        """The loss, in bits per text."""
        return self.entropy + self.excess

    @property
    def holds(self) -> bool:
        """Whether the loss is not below the entropy, up to its error. Infinity is not below it, NaN is."""
        return self.excess >= -(MAX_ERRORS * self.error + ROUNDING)


@dataclass(frozen=True)
class Audit:
    """All comparisons of one loss."""

    name: str
    comparisons: tuple[Comparison, ...]

    @property
    def quantities(self) -> list[str]:
        """What was compared: `likelihood`, or `loss` and perhaps `bound`."""
        return list(dict.fromkeys(each.quantity for each in self.comparisons))

    def is_bound(self, quantity: str = "") -> bool:
        """Whether a quantity (empty: every one) is nowhere below the entropy."""
        return all(each.holds for each in self.comparisons if quantity in ("", each.quantity))

    def worst(self, quantity: str = "") -> Comparison:
        """The case where a quantity (empty: any) is furthest below the entropy, or else closest to it."""
        cases = [each for each in self.comparisons if quantity in ("", each.quantity)]
        return min(cases, key=lambda each: (each.holds, -math.inf if math.isnan(each.excess) else each.excess))

    def verdict(self, quantity: str) -> str:
        """A sentence: that the quantity may be a bound, or where and by how much it is not."""
        worst = self.worst(quantity)
        subject = self.name if quantity == "likelihood" else f"The {quantity} of {self.name}"
        if worst.holds:
            return f"{subject} is nowhere below the entropy."
        where = f"{worst.process} process, {worst.denoiser} denoiser, language '{worst.language}', given {worst.given}"
        if math.isnan(worst.excess):
            return f"{subject} is not a number ({where})."
        return (
            f"{subject} is not a bound: it says {worst.loss:.4g} bits where the entropy is {worst.entropy:.4g}, "
            f"{-worst.excess:.4g} too few ({where})."
        )


def audit(
    loss: LossFunction,
    *,
    name: str = "",
    processes: Sequence[str] = (),
    languages: Mapping[str, KnownLanguage] | None = None,
    rows: int = 1000,
    seed: int = 0,
) -> Audit:
    """Compares a loss with the entropy on known languages (by default `LANGUAGES`), with ideal and worse denoisers.

    `loss(model, batch, rng=rng)` returns -log p(x) of every row in nats, at the batch's target positions, or a `Loss`
    in nats per token; `model.denoiser(xt, t, batch=batch).logits` are the predictions it may use. `processes` are names
    of `ideal_models`; by default those that the loss's own `processes` allow. Each case has `BATCHES` batches of `rows`
    texts, so more rows find smaller violations.

    An audit finds losses that are not bounds; that it finds nothing is evidence, not proof. Raises UserError where the
    loss names no process, returns something else, or needs more of a denoiser than predictions.
    """
    name = name or (loss.kind if isinstance(loss, Part) else getattr(loss, "__name__", type(loss).__name__))
    if rows < 2:
        raise UserError(f"rows is {rows}; an audit needs at least 2.")
    comparisons: list[Comparison] = []
    for language_name, language in (LANGUAGES if languages is None else languages).items():
        models = ideal_models(language)
        for process in _processes(loss, name, processes, models):
            model = models[process]
            ideal = model.denoiser
            for denoiser, factor in DENOISERS.items():
                model.denoiser = ideal if factor == 1.0 else ScaledDenoiser(ideal, factor)
                for given, first in CONDITIONS.items():
                    case = (process, language_name, denoiser, given)
                    comparisons += _compare(loss, name, model, language, first, case, rows, seed)
    return Audit(name, tuple(comparisons))


def _processes(loss: Any, name: str, asked: Sequence[str], models: Mapping[str, DiffusionModel]) -> list[str]:
    if unknown := [process for process in asked if process not in models]:
        raise UserError(f"There is no process {unknown[0]!r}; it can be {', '.join(models)}.")
    supported = getattr(loss, "processes", None)
    if not asked and supported is None:
        raise UserError(f"{name} does not say which processes it is for; name them: processes=['masked'].")
    return [
        process
        for process, model in models.items()
        if (process in asked if asked else isinstance(model.process, supported or ()))
    ]


def _compare(
    loss: LossFunction,
    name: str,
    model: DiffusionModel,
    language: KnownLanguage,
    first_given: bool,
    case: tuple[str, str, str, str],
    rows: int,
    seed: int,
) -> list[Comparison]:
    """The loss of texts drawn from the language above their true nats, so that the draw of the texts adds no error."""
    known = torch.arange(language.length) < int(first_given)
    truth = language.nll(known)
    entropy = float(language.probs.double() @ torch.where(language.probs > 0, truth, 0.0))
    excess: dict[str, list[float]] = {}
    for number in range(BATCHES):
        rng = Rng.of(seed, rows).fork("audit").fork(number)
        drawn = rng.fork("texts").categorical(language.probs.expand(rows, -1))
        tokens = language.texts[drawn]
        batch = Batch(tokens, condition_mask=known.expand(tokens.shape) if first_given else None)
        for quantity, nats in _nats(loss, name, model, batch, rng.fork("loss")).items():
            excess.setdefault(quantity, []).append(nats - float(truth[drawn].mean()))
    bits = {quantity: torch.tensor(values, dtype=torch.float64) / math.log(2) for quantity, values in excess.items()}
    return [
        Comparison(quantity, *case, entropy / math.log(2), float(values.mean()), _standard_error(values))
        for quantity, values in bits.items()
    ]


def _nats(loss: LossFunction, name: str, model: DiffusionModel, batch: Batch, rng: Rng) -> dict[str, float]:
    """The mean nats per text of what the loss returns, by quantity."""
    try:
        with torch.no_grad():
            value = loss(model, batch, rng=rng)
    except AttributeError as error:
        if error.obj is not model.denoiser:
            raise
        raise UserError(
            f"{name} uses the denoiser's {error.name!r}, which ideal denoisers lack: they only predict tokens."
        ) from None
    if isinstance(value, Loss):
        targets = int(batch.target_mask[0].sum())
        parts = {"loss": value.total} | {key: part for key, part in value.parts.items() if key == "bound"}
        return {quantity: float(part) * targets for quantity, part in parts.items()}
    if not isinstance(value, Tensor) or value.shape != batch.tokens.shape[:1]:
        what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"{name} returned {what}; it must return nats per row, shape [{len(batch.tokens)}], or a Loss.")
    return {"likelihood": float(value.double().mean())}


def _standard_error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if bool(values.isfinite().all()) else 0.0
