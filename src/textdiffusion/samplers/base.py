"""The contract of sampling: a `Request` goes in, a `Sampler` turns noise into text, and every `Step` comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import Part, check_bounds
from ..core.types import NoiseTimes, PerPosition, Times, Tokens
from ..data.tokenizers.base import Tokenizer
from ..diffusion.model import Denoiser, DiffusionModel
from ..diffusion.prediction import Prediction

Transform = Callable[[Prediction, Tensor, Tensor, Batch], Prediction]
"""A new prediction from a prediction, x_t, t and the batch."""


@runtime_checkable
class Guide(Protocol):
    """Something that steers sampling: `wrap` changes predictions, `after_step` changes the state after each step.

    `processes` are the processes that the guide supports. `wrap` receives the full request, because the denoiser may
    later be called with some of its rows or positions only.
    """

    processes: ClassVar[tuple[type, ...]]

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser: ...

    def after_step(self, xs: Tensor, s: Times, *, batch: Batch, rng: Rng) -> Tensor: ...


class LogitsGuide:
    """Base of guides that change predictions only. Supports every process unless a subclass sets `processes`."""

    processes: ClassVar[tuple[type, ...]] = (object,)

    def after_step(self, xs: Tensor, s: Times, *, batch: Batch, rng: Rng) -> Tensor:
        return xs


class Outermost:
    """Marks a guide that acts after all other guides, wherever it stands in the request."""


class WrappedDenoiser:
    """A denoiser whose predictions pass through a function.

    `noise_aware`: the function depends on t, so its result cannot be cached even where the denoiser's can.
    """

    def __init__(self, denoiser: Denoiser, transform: Transform, noise_aware: bool = False) -> None:
        self.denoiser, self.transform = denoiser, transform
        self.time_independent = denoiser.time_independent and not noise_aware
        self.self_conditioning = denoiser.self_conditioning

    def __call__(self, xt: Tensor, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        return self.transform(self.denoiser(xt, t, batch=batch, self_cond=self_cond), xt, t, batch)


@runtime_checkable
class Run(Protocol):
    """The parts of a run that a guide may use: model, tokenizer and configuration."""

    @property
    def model(self) -> DiffusionModel: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def config(self) -> Any: ...  # a `config.Config`, which lies in a layer above


@dataclass(frozen=True)
class Request:
    """What to generate: the rows of `batch` in `steps` steps under `guides`. Conditioning tokens are kept exactly.

    If the batch is a slice of longer texts, `full_batch` holds the texts so far and `offset` is where the slice begins.
    """

    batch: Batch
    steps: int
    guides: tuple[Guide, ...] = ()
    full_batch: Batch | None = None
    offset: int = 0

    @classmethod
    def blank(cls, num: int, length: int, steps: int, guides: tuple[Guide, ...] = (), device: str = "cpu") -> Request:
        """A request for `num` rows of `length` tokens without any condition."""
        return cls(Batch(torch.zeros(num, length, dtype=torch.long, device=device)), steps, guides)


@dataclass(frozen=True)
class Step:
    """The batch after one step of a sampler.

    `index` runs from 0 (pure noise) to `total` (the result), and `t` falls from 1 to 0. `tokens` are the current
    tokens; an undecided position has an id outside the tokenizer's vocabulary (`>= vocab_size`). `confidence` is the
    probability that the model gave to the token (0 where undecided or not predicted yet, 1 at conditioning tokens).
    `state` is x_t: token ids or vectors. `nfe` is the number of function evaluations so far: network calls, averaged
    over the rows.
    """

    index: int
    total: int
    t: float
    tokens: Tokens
    confidence: PerPosition
    state: Tensor
    nfe: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sampler(Part, ABC):
    """An algorithm that turns noise into text: its fields are its settings, and calling it samples.

    `processes` are the processes it supports. `steps` is the number of steps unless a request asks for another; where
    `min_steps` is 0, it may be 0: one step per token. So are `temperature` and `top_p`, with which guides change the
    predictions (1: not at all). `converges`: with its default settings and an ideal denoiser it
    samples the data distribution in the limit of many steps; where not, the docstring says what it samples from.
    """

    processes: ClassVar[tuple[type, ...]]
    min_steps: ClassVar[int] = 1
    converges: ClassVar[bool] = True

    steps: int = 64
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, steps=(self.min_steps, None), temperature=(0.0, None), top_p=(0.0, 1.0))

    @abstractmethod
    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Yields the noise as step 0, then the batch after each of the request's steps."""


@runtime_checkable
class ProcessSpecific(Protocol):
    """A sampler, guide, objective or likelihood, which declares the processes it supports."""

    processes: ClassVar[tuple[type, ...]]


def incompatibility(part: ProcessSpecific, process: object) -> str | None:
    """Why a part cannot act on a process (or its class), as a sentence that names the supported ones (None: it can)."""
    kind = process if isinstance(process, type) else type(process)
    if issubclass(kind, part.processes):
        return None
    allowed = " or ".join(p.__name__ for p in part.processes)
    return f"{type(part).__name__} cannot act on {kind.__name__}: it needs {allowed}."


def check_compatible(part: ProcessSpecific, process: object) -> None:
    """Raises UserError where a part cannot act on a process."""
    if problem := incompatibility(part, process):
        raise UserError(problem)


class SamplingState:
    """A request while it is sampled: what the states of all processes share.

    `denoiser` is the model's (or the one given) wrapped in the request's guides; the first guide is the innermost,
    except that `Outermost` guides come last. Each state has its own copies of the guides, which may remember things.
    """

    process: Any  # duck-typed, as in a model; the sampler's `processes` name the classes

    def __init__(self, model: DiffusionModel, request: Request, denoiser: Denoiser | None = None) -> None:
        self.process, self.batch, self.steps = model.process, request.batch, request.steps
        rows_per_call: list[int] = []
        self._num_rows, self._rows_per_call = len(request.batch.tokens), rows_per_call

        def count(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            rows_per_call.append(len(batch.tokens))
            return prediction

        self.denoiser: Denoiser = WrappedDenoiser(model.denoiser if denoiser is None else denoiser, count)
        self.guides = [copy(guide) for guide in request.guides]
        for guide in sorted(self.guides, key=lambda guide: isinstance(guide, Outermost)):
            check_compatible(guide, model.process)
            self.denoiser = guide.wrap(self.denoiser, request)

    @property
    def nfe(self) -> float:
        """Function evaluations so far: network calls, those of guides included, averaged over the request's rows."""
        return sum(self._rows_per_call) / self._num_rows

    def apply_guides(self, xs: Tensor, s: Times, rng: Rng) -> Tensor:
        """The state after a step to s, as the guides change it in turn."""
        for number, guide in enumerate(self.guides):
            xs = guide.after_step(xs, s, batch=self.batch, rng=rng.fork("guide").fork(number))
        return xs
