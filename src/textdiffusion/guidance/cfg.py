"""Classifier-free guidance: extrapolates from the prediction without a condition to the one with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.registry import check_bounds
from ..core.types import NoiseTimes
from ..data.conditions import drop_condition
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import Denoiser, DiffusionModel
from ..diffusion.prediction import MixedScorePrediction, Prediction
from ..diffusion.process import TokenProcess
from ..diffusion.ratios import Graph
from ..diffusion.vector_predictions import PredictionWithMean
from ..samplers.base import Guide, LogitsGuide, Request, Run
from .base import GuideConfig


@dataclass(frozen=True)
class Cfg(GuideConfig):
    """Classifier-free guidance: follows the label, source or given text more closely than the run alone.

    `weight` 0 ignores the condition, 1 is the run itself, and above 1 the condition counts more.
    """

    weight: float = 2.0

    def __post_init__(self) -> None:
        check_bounds(self, weight=(0.0, None))

    def bind(self, run: Run) -> Guide:
        """The guide, with the form of "no condition" that the run was trained with."""
        text, model = run.config.text, run.model
        if text.condition_dropout and model.unadapted is not model:
            raise UserError(
                "cfg with a run trained with text.condition_dropout needs a sampler of the run's own noise: training "
                "dropped conditions only under that noise."
            )
        hides_prompt = isinstance(model.process, AbsorbingProcess) and not (text.has_source or text.label)
        supported = isinstance(model.process, ClassifierFree.processes)  # otherwise `check_compatible` says why
        if supported and not (text.condition_dropout or hides_prompt):
            raise UserError(
                "cfg needs a run trained to work without the condition too; train with text.condition_dropout=0.1."
            )
        return ClassifierFree(model, self.weight, run.tokenizer.pad_id if text.condition_dropout else None)


class ClassifierFree(LogitsGuide):
    """Combines two predictions into that of p_t(c | x)^weight p_t(x), normalised, at every noise level.

    This is what `weight` does to scores: to the mean of the clean state (Ho & Salimans 2022, eq. 6), to the log score
    of tokens (Nisonoff et al. 2024, eq. 9), and to autoregressive log probabilities (Sanchez et al. 2023). Weight 0 is
    the prediction without the condition and weight 1 the one with it, at one call per step; others cost two calls.

    "Without the condition" means no label, and padding in place of the conditioning tokens, as in training. If `pad` is
    None, masks take their place, which hides a prompt from any masked model (Nie et al. 2024, section 4).
    """

    processes = (GaussianProcess, TokenProcess, AutoregressiveProcess)

    def __init__(self, model: DiffusionModel, weight: float, pad: int | None) -> None:
        self.codec, self.process, self.weight, self.pad = model.codec, model.process, weight, pad

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """The guided denoiser. Raises UserError if the request has neither a label nor conditioning tokens."""
        if request.batch.labels is None and request.batch.condition_mask is None:
            raise UserError("cfg needs a condition: a label, a source, or given text.")
        return denoiser if self.weight == 1.0 else _GuidedDenoiser(self, denoiser)

    def without_condition(self, xt: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """State and batch with the condition removed."""
        if batch.condition_mask is None:
            return xt, drop_condition(batch, 0)
        if self.pad is None:
            return torch.where(batch.condition_mask, self.process.mask, xt), replace(batch, condition_mask=None)
        unconditional = drop_condition(batch, self.pad)
        condition_mask = batch.condition_mask if xt.ndim == 2 else batch.condition_mask[..., None]
        return torch.where(condition_mask, self.codec.encode(unconditional.tokens), xt), unconditional

    def combine(self, conditional: Prediction, unconditional: Prediction, xt: Tensor, t: NoiseTimes) -> Prediction:
        """The guided prediction."""
        if not isinstance(self.process, TokenProcess):
            logits = self._extrapolate(unconditional.logits.log_softmax(-1), conditional.logits.log_softmax(-1))
            if conditional.table is None:
                return Prediction(logits)
            mean = self._extrapolate(unconditional.mean, conditional.mean)
            return PredictionWithMean(logits, mean, conditional.table)
        graph: Graph = self.process.graph
        t = (t if t.ndim == 2 else t[:, None]).expand(xt.shape)
        log_score = self._extrapolate(unconditional.log_score(graph, xt, t), conditional.log_score(graph, xt, t))
        logits = graph.x0_logits(log_score, xt, t).masked_fill(unconditional.logits == -torch.inf, -torch.inf)
        return MixedScorePrediction(logits, log_score)

    def _extrapolate(self, unconditional: Tensor, conditional: Tensor) -> Tensor:
        # What is impossible without the condition stays so, also where both are -inf.
        extrapolated = unconditional + self.weight * (conditional - unconditional)
        return torch.where(unconditional == -torch.inf, unconditional, extrapolated)


class _GuidedDenoiser:
    """Calls the denoiser with and without the condition."""

    def __init__(self, guide: ClassifierFree, denoiser: Denoiser) -> None:
        self.guide, self.denoiser = guide, denoiser
        self.time_independent, self.self_conditioning = denoiser.time_independent, denoiser.self_conditioning

    def __call__(self, xt: Tensor, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        x_without, batch_without = self.guide.without_condition(xt, batch)
        unconditional = self.denoiser(x_without, t, batch=batch_without, self_cond=self_cond)
        if self.guide.weight == 0.0:
            return unconditional
        conditional = self.denoiser(xt, t, batch=batch, self_cond=self_cond)
        return self.guide.combine(conditional, unconditional, xt, t)
