"""Classifier-free guidance: away from what a model says without a condition, towards what it says with it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..data.conditions import drop_condition
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import Denoiser, DiffusionModel
from ..diffusion.prediction import Prediction, PredictionWithMean
from ..diffusion.process import TokenProcess
from ..diffusion.ratios import Graph
from ..samplers.base import LogitsGuide, Request


class ClassifierFree(LogitsGuide):
    """Two predictions become that of the noisy law p_t(c | x)^weight p_t(x), normalised, at every noise level.

    That is what `weight` does to scores: to the mean of the clean state (Ho & Salimans 2022, eq. 6), to the log ratios
    of tokens (Nisonoff et al. 2024, eq. 9), and to log probabilities from left to right (Sanchez et al. 2023). Weight 0
    is without the condition, 1 with it, at the cost of one call a step; others cost two.

    Without the condition a row has no label, and padding, as `training` has shown it, in the place of what is given;
    where `pad` is None, masks, which hide a prompt from any model of masks (Nie et al. 2024, section 4).
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess, TokenProcess, AutoregressiveProcess)

    def __init__(self, model: DiffusionModel, weight: float, pad: int | None) -> None:
        self.codec, self.process, self.weight, self.pad = model.codec, model.process, weight, pad

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Guided predictions. Raises UserError where there is neither a label nor anything given."""
        if request.batch.labels is None and request.batch.condition_mask is None:
            raise UserError("The guide cfg needs a condition: a label, a source, or given text.")
        return denoiser if self.weight == 1.0 else _Guided(self, denoiser)

    def without(self, xt: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """State and batch that do not show the condition."""
        if batch.condition_mask is None:
            return xt, drop_condition(batch, 0)
        if self.pad is None:
            return torch.where(batch.condition_mask, self.process.mask, xt), replace(batch, condition_mask=None)
        bare = drop_condition(batch, self.pad)
        given = batch.condition_mask if xt.ndim == 2 else batch.condition_mask[..., None]
        return torch.where(given, self.codec.encode(bare.tokens), xt), bare

    def mixed(self, with_it: Prediction, without: Prediction, xt: Tensor, t: Float[Tensor, "b *l"]) -> Prediction:
        """The guided prediction."""
        if not isinstance(self.process, TokenProcess):
            logits = self._between(without.logits.log_softmax(-1), with_it.logits.log_softmax(-1))
            if with_it.table is None:
                return Prediction(logits)
            return PredictionWithMean(logits, self._between(without.mean, with_it.mean), with_it.table)
        graph: Graph = self.process.graph
        each = (t if t.ndim == 2 else t[:, None]).expand(xt.shape)
        ratios = self._between(without.log_score(graph, xt, each), with_it.log_score(graph, xt, each))
        logits = graph.x0_logits(ratios, xt, each).masked_fill(without.logits == -torch.inf, -torch.inf)
        return MixedScorePrediction(logits, ratios)

    def _between(self, without: Tensor, with_it: Tensor) -> Tensor:
        # What is impossible without the condition stays so, also where both are -inf.
        return torch.where(without == -torch.inf, without, without + self.weight * (with_it - without))


class _Guided:
    """The denoiser that asks twice."""

    def __init__(self, guide: ClassifierFree, denoiser: Denoiser) -> None:
        self.guide, self.denoiser = guide, denoiser
        self.time_independent, self.self_conditioning = denoiser.time_independent, denoiser.self_conditioning

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction:
        state, bare = self.guide.without(xt, batch)
        without = self.denoiser(state, t, batch=bare, self_cond=self_cond)
        if self.guide.weight == 0.0:
            return without
        return self.guide.mixed(self.denoiser(xt, t, batch=batch, self_cond=self_cond), without, xt, t)


class MixedScorePrediction(Prediction):
    """A prediction made of log ratios, which need not be those of any law of clean tokens."""

    def __init__(self, logits: Float[Tensor, "b l v"], log_ratios: Float[Tensor, "b l v"]) -> None:
        super().__init__(logits)
        self._log_ratios = log_ratios

    def log_score(self, graph: Graph, xt: Int[Tensor, "b l"], t: Float[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        return self._log_ratios
