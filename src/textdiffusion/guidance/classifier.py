"""Guidance by a classifier: through the predicted text or through the noisy state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Logits, NoiseTimes, PerRow, Times, Tokens, Vectors
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import Denoiser
from ..diffusion.prediction import MixedScorePrediction, Prediction
from ..diffusion.process import TokenProcess
from ..diffusion.table_codecs import TableCodec
from ..diffusion.vector_predictions import PredictionWithMean
from ..samplers.base import Guide, LogitsGuide, Request, Run, WrappedDenoiser
from .base import GuideConfig
from .trained_classifier import LogProbFn, load

_CHUNK_TEXTS = 1 << 14  # texts classified at once
_EXACT = "classifier.exact needs through=state and a run whose states are token ids."


@dataclass(frozen=True)
class Classifier(GuideConfig):
    """Steers towards a label of the classifier in the folder `path` (made by `textdiffusion train-classifier`).

    `weight` is the power of the label's probability; below 0 it steers away. `through` prediction classifies the clean
    text that the model predicts, `through` state the noisy state. `exact`, only for states of token ids: the number of
    likely tokens per position whose texts are classified one by one; a gradient, which is faster and less accurate,
    stands for the other tokens.
    """

    path: str
    label: str
    weight: float = 1.0
    through: Literal["prediction", "state"] = "prediction"
    exact: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, exact=(0, None))
        if self.exact and self.through == "prediction":
            raise UserError(_EXACT)

    def bind(self, run: Run) -> Guide:
        classifier, process = load(self.path, run), run.model.process
        is_gaussian = isinstance(process, ClassifierGradient.processes)
        if self.exact and is_gaussian:
            raise UserError(_EXACT)
        if self.through == "prediction":
            return PlugAndPlay(classifier.clean_log_prob(self.label), process, self.weight)
        if run.model.unadapted is not run.model:
            raise UserError(
                "This classifier was trained on noisy vectors, not masks; use through=prediction, or a sampler of the "
                "run's own noise."
            )
        log_prob = classifier.noisy_log_prob(self.label)
        if is_gaussian:
            return ClassifierGradient(log_prob, process, self.weight)
        return DiscreteClassifier(log_prob, process, self.weight, self.exact)


@dataclass(frozen=True)
class Energy(GuideConfig):
    """Steers towards a label by gradient steps on the state after each step (Diffusion-LM); Gaussian processes only.

    `weight` is the size of a gradient step, relative to the root mean square of the state; below 0 it steers away.
    `fluency` is the cost of moving the state, and `updates` the number of gradient steps.
    """

    path: str
    label: str
    weight: float = 0.1
    fluency: float = 0.01
    updates: int = 3

    def __post_init__(self) -> None:
        check_bounds(self, fluency=(0.0, None), updates=(1, None))

    def bind(self, run: Run) -> Guide:
        log_prob, model = load(self.path, run).noisy_log_prob(self.label), run.model
        if not isinstance(model.codec, TableCodec):
            raise UserError("energy needs a run whose states are vectors; here they are token ids, so use classifier.")
        return EnergyGradient(log_prob, model.process, self.weight, model.codec.scale, self.fluency, self.updates)


@dataclass(frozen=True)
class _ClassifierGuide(LogitsGuide, ABC):
    """Base of guides that change predictions by log p(label | ...). `weight` is the power of that probability."""

    noise_aware: ClassVar[bool] = True  # the classifier sees t, whether or not the denoiser does

    log_prob: Callable[..., Tensor]
    process: Any  # duck-typed, as in a model; `processes` names the classes
    weight: float

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return WrappedDenoiser(denoiser, self.condition, self.noise_aware)

    @abstractmethod
    def condition(self, prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        """The prediction given the label."""


class ClassifierGradient(_ClassifierGuide):
    """Moves the mean by weight sigma^2 grad log p(label | x_t), for a classifier of noisy vectors.

    At weight 1 and with an exact classifier this is the mean of the clean state given the label, by Tweedie's formula
    (Dhariwal & Nichol 2021, section 4, in the frame of x_0 + sigma eps).
    """

    processes = (GaussianProcess,)

    def condition(self, prediction: Prediction, xt: Vectors, t: NoiseTimes, batch: Batch) -> Prediction:
        gradient = gradient_of(lambda x: self.log_prob(x, _per_row(t), batch), xt)
        shift = self.weight * self.process.sigma_over(t, xt) ** 2 * gradient
        return PredictionWithMean(prediction.logits, prediction.mean + shift, prediction.table)


@dataclass(frozen=True)
class DiscreteClassifier(_ClassifierGuide):
    """Multiplies the score of token y by [p(label | x_t with y here) / p(label | x_t)]^weight, at every position.

    D-CBG (Schiff et al. 2024, section 3.2); the guided rates of Nisonoff et al. (2024). At weight 1 and with an exact
    classifier this is Bayes' rule: p(x_0 | x_t, label). Texts with one of the `exact` likeliest tokens at a position
    are classified themselves. All other tokens use a first-order approximation from one gradient, which is poor at
    masks.
    """

    processes = (TokenProcess,)

    exact: int = 0

    def condition(self, prediction: Prediction, xt: Tokens, t: NoiseTimes, batch: Batch) -> Prediction:
        graph, position_t = self.process.graph, (t if t.ndim == 2 else t[:, None]).expand(xt.shape)
        vocab_size, row_t = self.process.vocab_size, _per_row(t)
        log_ratio = torch.zeros(*xt.shape, vocab_size, device=xt.device)
        if self.exact < vocab_size:
            log_ratio = self._first_order(xt, row_t, batch)
        if self.exact:
            tokens = prediction.logits.topk(min(self.exact, vocab_size)).indices
            log_ratio = log_ratio.scatter(-1, tokens, self._exact(xt, tokens, row_t, batch))
        log_score = prediction.log_score(graph, xt, position_t) + self.weight * log_ratio
        logits = graph.x0_logits(log_score, xt, position_t)
        # Under uniform noise even a token of probability 0 has a score, which guidance would raise.
        return MixedScorePrediction(logits.masked_fill(prediction.logits == -torch.inf, -torch.inf), log_score)

    def _first_order(self, xt: Tokens, t: Times, batch: Batch) -> Logits:
        """The log ratio of each token by a Taylor expansion around x_t."""
        one_hot = F.one_hot(xt, self.process.vocab_size + 1).float()
        gradient = gradient_of(lambda x: self.log_prob(x, t, batch), one_hot)
        return (gradient - gradient.gather(-1, xt[..., None]))[..., : self.process.vocab_size]

    def _exact(self, xt: Tokens, tokens: Int[Tensor, "b l k"], t: Times, batch: Batch) -> Float[Tensor, "b l k"]:
        """The log ratio of each of the tokens at its position; 0 at positions that do not change."""
        noisy, log_prob = self.process.is_noisy(xt) & batch.target_mask, self.log_prob(xt, t, batch)
        log_ratio = torch.zeros(tokens.shape, device=xt.device)
        indices = noisy[..., None].expand(tokens.shape).nonzero().T
        for row, position, k in zip(*(index.split(_CHUNK_TEXTS) for index in indices), strict=True):
            texts = xt[row]
            texts[torch.arange(len(row), device=xt.device), position] = tokens[row, position, k]
            log_ratio[row, position, k] = self.log_prob(texts, t[row], batch.select(row)) - log_prob[row]
        return log_ratio


class PlugAndPlay(_ClassifierGuide):
    """Adds weight times the gradient of log p(label | predicted text) to the logits, for a classifier of clean texts.

    The predicted text is soft: a mixture of tokens at every position. To first order, the gradient with respect to a
    token's probability is the evidence of that token for the label (as in SSD-LM, section 3.4).
    """

    processes = (GaussianProcess, TokenProcess)
    noise_aware = False

    def condition(self, prediction: Prediction, xt: Tensor, t: NoiseTimes, batch: Batch) -> Prediction:
        known = torch.zeros_like(batch.target_mask) if batch.prompt_mask is None else batch.prompt_mask
        tokens = batch.tokens
        if not xt.is_floating_point():
            known = known | ~self.process.is_noisy(xt)
            tokens = torch.where(known & batch.target_mask, xt, tokens)
        one_hot = F.one_hot(torch.where(known, tokens, 0), prediction.logits.shape[-1]).float()
        probs = torch.where(known[..., None], one_hot, prediction.probs)
        gradient = gradient_of(lambda probs: self.log_prob(probs, batch), probs)
        return prediction.with_logits(prediction.logits + self.weight * gradient)


@dataclass(frozen=True)
class EnergyGradient:
    """Takes `updates` steps of Adagrad on the state after every step of the sampler (Diffusion-LM, section 5.1).

    They minimise -log p(label | x_s) + fluency ||x - x_s||^2 / sigma_s^2, where x_s is the state that the sampler has
    reached; the second term keeps the text close to the model's. `weight` is Adagrad's learning rate in root mean
    squares of a noisy state's coordinates; below 0 it leads away from the label.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    log_prob: LogProbFn
    process: GaussianProcess
    weight: float
    scale: float
    """Root mean square of a clean state's coordinates."""
    fluency: float = 0.01
    updates: int = 3

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return denoiser

    def after_step(self, xs: Vectors, s: Times, *, batch: Batch, rng: Rng) -> Tensor:
        """The state after the updates. Each step of the sampler starts a new Adagrad."""
        sigma = self.process.sigma_over(s, xs)
        unit = torch.sqrt(sigma**2 + self.scale**2)
        sign = 1.0 if self.weight >= 0 else -1.0

        def negative_energy(x: Tensor) -> Tensor:
            distance = ((x * unit - xs) / sigma).square().sum((1, 2))
            return sign * self.log_prob(x * unit, s, batch) - self.fluency * distance

        x, sum_of_squares = xs / unit, torch.zeros_like(xs)
        for _ in range(self.updates):
            gradient = gradient_of(negative_energy, x)
            sum_of_squares = sum_of_squares + gradient.square()
            x = x + abs(self.weight) * gradient / (sum_of_squares.sqrt() + 1e-10)
        return x * unit


def gradient_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of the sum of `function(x)`, whose rows must each depend on the same row of x only."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x).sum(), x)[0]


def _per_row(t: NoiseTimes) -> PerRow:
    """One time per row: the greatest of its positions."""
    return t if t.ndim == 1 else t.amax(1)
