"""A diffusion model: a codec, a process, a time density and a denoiser."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.types import NoiseTimes
from .prediction import Prediction


@runtime_checkable
class Denoiser(Protocol):
    """The network with its parameterisation.

    `time_independent`: the prediction depends on x_t alone, so it can be cached. `self_conditioning`: the network takes
    its own earlier estimate of the clean state, in training, sampling and evaluation alike.
    """

    time_independent: bool
    self_conditioning: bool

    def __call__(self, xt: Tensor, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction: ...


@runtime_checkable
class PredictsNext(Protocol):
    """A denoiser that predicts each token from those before it, whether or not that is all it can."""

    def predict_next(self, xt: Tensor, batch: Batch) -> Prediction: ...


def next_token_prediction(model: DiffusionModel, xt: Tensor, batch: Batch) -> Prediction:
    """p(x_i | x_{<i}) at every position."""
    if isinstance(model.denoiser, PredictsNext):
        return model.denoiser.predict_next(xt, batch)
    assert not model.process.bidirectional, "the denoiser would see the tokens that it is to predict"
    return model.denoiser(xt, xt.new_zeros(len(xt), dtype=torch.float), batch=batch)


@runtime_checkable
class SupportsCaching(Protocol):
    """A denoiser that can sample from left to right without reading the text again for every token."""

    def cached(self) -> Denoiser:
        """A denoiser for one sampling run, with the same prediction of the last position; it remembers the others."""
        ...


class DiffusionModel(nn.Module):
    """The learned parts of a run as one module, so that they are saved, averaged and synchronised together.

    The objective, the likelihood and the sampler are not part of the model: they take it as an argument.
    `window_length` is the number of tokens in a training window. `step` counts the optimizer's steps.
    """

    # Parts are duck-typed by their protocols; `config.compatibility` refuses those that do not fit together.
    codec: Any
    process: Any
    time_density: Any
    denoiser: Any
    step: Tensor
    tuned: Tensor | None
    """Times at evenly spaced fractions from clean to noise: the sampling grid tuned after training, if any."""

    def __init__(
        self, codec: nn.Module, process: nn.Module, time_density: nn.Module, denoiser: nn.Module, window_length: int = 0
    ) -> None:
        super().__init__()
        self.codec, self.process, self.time_density, self.denoiser = codec, process, time_density, denoiser
        self.window_length = window_length
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("tuned", None, persistent=False)

    @property
    def unadapted(self) -> DiffusionModel:
        """The model of the noise that the run was trained with: this one, unless it is a `MaskedView` of that model."""
        return self

    def after_step(self) -> None:
        """Counts a step of the optimizer and updates the moving averages of the time density. Call after every step."""
        self.step += 1
        self.time_density.update_average()
