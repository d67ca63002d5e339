"""Guidance by a classifier: by its gradient where states are vectors, token by token where they are ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction, PredictionWithMean
from ..diffusion.process import TokenProcess
from ..samplers.base import LogitsGuide, Request, WrappedDenoiser
from .trained_classifier import Judge

_NEIGHBOURS = 1 << 14  # texts judged at once


class _Judging(LogitsGuide, ABC):
    """What guides by a judge or reader share: `weight` is the power of the label's probability; below 0 leads away."""

    process: Any  # duck-typed, as in a model; `processes` says which
    noise_aware: ClassVar[bool] = True  # the judge sees t, if the denoiser does or not

    def __init__(self, judge: Callable[..., Tensor], process: object, weight: float) -> None:
        self.judge, self.process, self.weight = judge, process, weight

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions given the label."""
        return WrappedDenoiser(denoiser, self.changed, self.noise_aware)

    @abstractmethod
    def changed(self, said: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        """The prediction given the label."""


class ClassifierGradient(_Judging):
    """Moves the mean by weight sigma^2 grad log p(label | x_t), for a judge that knows noise.

    At weight 1, and with an exact judge, that is the mean of the clean state given the label, by Tweedie's formula
    (Dhariwal & Nichol 2021, section 4, in the frame of x_0 + sigma eps).
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def changed(
        self, said: Prediction, xt: Float[Tensor, "b l d"], t: Float[Tensor, "b *l"], batch: Batch
    ) -> Prediction:
        gradient = slope(lambda x: self.judge(x, _of_rows(t), batch), xt)
        by = self.weight * self.process.sigma_over(t, xt) ** 2 * gradient
        return PredictionWithMean(said.logits, said.mean + by, said.table)


class DiscreteClassifier(_Judging):
    """Ratios of probabilities times [p(label | x_t with y here) / p(label | x_t)]^weight, for every y and position.

    That is D-CBG (Schiff et al. 2024, section 3.2), and the guided rates of Nisonoff et al. (2024). At weight 1, with
    an exact judge, it is Bayes' rule: the prediction becomes p(x_0 | x_t, label). Texts with one of the `exact`
    likeliest tokens at a place are judged themselves, so many for each place that may change; what the judge says of
    other tokens is read off one gradient (first order), which a network says little by where a mask stands.
    """

    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __init__(self, judge: Judge, process: object, weight: float, exact: int = 0) -> None:
        super().__init__(judge, process, weight)
        self.exact = exact

    def changed(self, said: Prediction, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], batch: Batch) -> Prediction:
        graph, each = self.process.graph, (t if t.ndim == 2 else t[:, None]).expand(xt.shape)
        vocab_size, rows = self.process.vocab_size, _of_rows(t)
        gain = torch.zeros(*xt.shape, vocab_size, device=xt.device)
        if self.exact < vocab_size:
            gain = self._taylor(xt, rows, batch)
        if self.exact:
            likely = said.logits.topk(min(self.exact, vocab_size)).indices
            gain = gain.scatter(-1, likely, self._neighbours(xt, likely, rows, batch))
        logits = graph.x0_logits(said.log_score(graph, xt, each) + self.weight * gain, xt, each)
        # Under uniform noise even a token that is barred has a ratio, which the gain would raise.
        return said.with_logits(logits.masked_fill(said.logits == -torch.inf, -torch.inf))

    def _taylor(self, xt: Int[Tensor, "b l"], t: Float[Tensor, " b"], batch: Batch) -> Float[Tensor, "b l v"]:
        gradient = slope(lambda x: self.judge(x, t, batch), F.one_hot(xt, self.process.vocab_size + 1).float())
        return (gradient - gradient.gather(-1, xt[..., None]))[..., : self.process.vocab_size]

    def _neighbours(
        self, xt: Int[Tensor, "b l"], tokens: Int[Tensor, "b l k"], t: Float[Tensor, " b"], batch: Batch
    ) -> Float[Tensor, "b l k"]:
        """What each of the tokens in its place adds to the judgement; 0 at places that do not change."""
        changing, own = self.process.is_noisy(xt) & batch.target_mask, self.judge(xt, t, batch)
        gain = torch.zeros(tokens.shape, device=xt.device)
        row, place, which = changing[..., None].expand(tokens.shape).nonzero().T
        for r, p, k in zip(*(index.split(_NEIGHBOURS) for index in (row, place, which)), strict=True):
            texts = xt[r]
            texts[torch.arange(len(r), device=xt.device), p] = tokens[r, p, k]
            gain[r, p, k] = self.judge(texts, t[r], batch.select(r)) - own[r]
        return gain


class PlugAndPlay(_Judging):
    """Logits plus weight times the gradient of log p(label | the predicted text), for a reader of clean texts.

    The predicted text is soft, a mixture of tokens at every position. To first order, the gradient by the probability
    of a token is what the label says for it (plug and play, as SSD-LM, section 3.4).
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess, TokenProcess)
    noise_aware: ClassVar[bool] = False

    def changed(self, said: Prediction, xt: Tensor, t: Float[Tensor, "b *l"], batch: Batch) -> Prediction:
        given = torch.zeros_like(batch.target_mask) if batch.prompt_mask is None else batch.prompt_mask
        if not xt.is_floating_point():
            given = given | ~self.process.is_noisy(xt)
        ids = batch.tokens if xt.is_floating_point() else torch.where(given & batch.target_mask, xt, batch.tokens)
        known = F.one_hot(torch.where(given, ids, 0), said.logits.shape[-1]).float()
        probs = torch.where(given[..., None], known, said.probs)

        return said.with_logits(said.logits + self.weight * slope(lambda probs: self.judge(probs, batch), probs))


class Energy:
    """`updates` steps of Adagrad on the state after every step of the sampler (Diffusion-LM, section 5.1).

    They lower -log p(label | x_s) + fluency ||x - x_s||^2 / sigma_s^2, where x_s is what the sampler has stepped to:
    the second term keeps the text what the model meant it to be. `weight` is the rate of Adagrad in root mean squares
    of a noisy state's coordinates; below 0 it leads away from the label.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(
        self,
        judge: Judge,
        process: GaussianProcess,
        weight: float,
        scale: float,
        fluency: float = 0.01,
        updates: int = 3,
    ) -> None:
        """`scale` is the root mean square of a clean state's coordinates."""
        self.judge, self.process, self.weight = judge, process, weight
        self.scale, self.fluency, self.updates = scale, fluency, updates

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions stay."""
        return denoiser

    def after(self, xs: Float[Tensor, "b l d"], s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """The state after the updates; each step of the sampler begins with a new Adagrad."""
        sigma = self.process.sigma_over(s, xs)
        unit = torch.sqrt(sigma**2 + self.scale**2)
        sign = 1.0 if self.weight >= 0 else -1.0

        def benefit(x: Tensor) -> Tensor:
            far = ((x * unit - xs) / sigma).square().sum((1, 2))
            return sign * self.judge(x * unit, s, batch) - self.fluency * far

        x, squares = xs / unit, torch.zeros_like(xs)
        for _ in range(self.updates):
            gradient = slope(benefit, x)
            squares = squares + gradient.square()
            x = x + abs(self.weight) * gradient / (squares.sqrt() + 1e-10)
        return x * unit


def slope(value: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of the sum of `value`, whose rows depend on those of its argument alone."""
    with torch.enable_grad():
        x = at.detach().requires_grad_()
        return torch.autograd.grad(value(x).sum(), x)[0]


def _of_rows(t: Float[Tensor, "b *l"]) -> Float[Tensor, " b"]:
    return t if t.ndim == 1 else t.amax(1)
