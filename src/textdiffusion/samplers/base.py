"""The contract of sampling: a request goes in, steps come out, and every view is a consumer of those steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction

if TYPE_CHECKING:
    from ..diffusion.model import DiffusionModel

Change = Callable[[Prediction, Tensor, Tensor, Batch], Prediction]  # said of x_t, at t, of a batch


@runtime_checkable
class Guide(Protocol):
    """`wrap` changes predictions, `after` the state a sampler has stepped to. `processes` are those it can act on.

    `request` is what is being sampled as a whole: a denoiser may be asked about some of its rows, or of its positions.
    """

    processes: ClassVar[tuple[type, ...]]

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser: ...

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor: ...


class LogitsGuide:
    """A guide that changes predictions alone, of any process unless it says which."""

    processes: ClassVar[tuple[type, ...]] = (object,)

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """Nothing."""
        return xs


class Outermost:
    """A guide that acts on what all others have said, wherever it stands among them."""


class WrappedDenoiser:
    """A denoiser whose predictions pass through a function, which may also ask for x_t, t and the batch.

    `noise_aware`: what it makes of them depends on t, if the denoiser sees it or not.
    """

    def __init__(self, denoiser: Denoiser, change: Change, noise_aware: bool = False) -> None:
        self.denoiser, self.change = denoiser, change
        self.time_independent, self.self_conditioning = (
            denoiser.time_independent and not noise_aware,
            denoiser.self_conditioning,
        )

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction:
        return self.change(self.denoiser(xt, t, batch=batch, self_cond=self_cond), xt, t, batch)


@runtime_checkable
class Run(Protocol):
    """What a guide may ask about the run that it steers."""

    @property
    def model(self) -> DiffusionModel: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def config(self) -> Any: ...


@dataclass(frozen=True)
class Request:
    """What to generate: the rows of `batch` (given positions are kept exactly), in `steps` steps, under `guides`.

    Where the batch is a part of longer texts, `whole` are these as they stand, and the part begins at `start` in them.
    """

    batch: Batch
    steps: int
    guides: tuple[Guide, ...] = ()
    full_batch: Batch | None = None
    offset: int = 0

    @classmethod
    def blank(cls, num: int, length: int, steps: int, guides: tuple[Guide, ...] = (), device: str = "cpu") -> Request:
        """`num` rows of `length` free positions."""
        return cls(Batch(torch.zeros(num, length, dtype=torch.long, device=device)), steps, guides)


@dataclass(frozen=True)
class Step:
    """The state of a batch after one step of the sampler.

    `index` runs from 0 (pure noise) to `total` (the result). `t` is the noise level left, 1 to 0. `ids` are the tokens
    as they stand now; a position that is still undecided holds an id outside the tokenizer's vocabulary
    (`>= vocab_size`). `confidence` is the probability the model gives to the token shown (0 where undecided
    or not yet asked, 1 at given positions).
    `calls` is the number of function evaluations so far (network calls, the mean over rows).
    """

    index: int
    total: int
    t: float
    tokens: Int[Tensor, "b l"]
    confidence: Float[Tensor, "b l"]
    state: Tensor
    nfe: float = 0.0


@runtime_checkable
class Sampler(Protocol):
    """Steps a state of noise back to text. `processes` are those it can drive."""

    processes: ClassVar[tuple[type, ...]]

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]: ...


@runtime_checkable
class Acts(Protocol):
    """A sampler, guide, objective or likelihood, which says what processes it can act on."""

    processes: ClassVar[tuple[type, ...]]


def incompatibility(part: Acts, process: object) -> str | None:
    """Why a part cannot act on a process (or its class), as a sentence that names those it can (None: it can)."""
    kind = process if isinstance(process, type) else type(process)
    if issubclass(kind, part.processes):
        return None
    allowed = " or ".join(p.__name__ for p in part.processes)
    return f"{type(part).__name__} cannot act on {kind.__name__}: it needs {allowed}."


def check_compatible(part: Acts, process: object) -> None:
    """Refuses a part that cannot act on a process."""
    if why_not := incompatibility(part, process):
        raise UserError(why_not)


class SamplingState:
    """A request on its way: what samplers of all processes share.

    `denoiser` is the model's, or another, under the guides of the request, the first innermost but for `Outermost`
    ones. Guides are copied: what they remember is of this stream alone.
    """

    process: Any  # duck-typed, as in a model; the sampler's `processes` say which

    def __init__(self, model: DiffusionModel, request: Request, denoiser: Denoiser | None = None) -> None:
        self.process, self.batch, self.steps = model.process, request.batch, request.steps
        asked: list[int] = []  # rows of each call of the network
        self._rows, self._asked = len(request.batch.tokens), asked

        def counted(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            asked.append(len(batch.tokens))
            return prediction

        self.denoiser: Denoiser = WrappedDenoiser(model.denoiser if denoiser is None else denoiser, counted)
        self.guides = [copy(guide) for guide in request.guides]
        for guide in sorted(self.guides, key=lambda guide: isinstance(guide, Outermost)):
            check_compatible(guide, model.process)
            self.denoiser = guide.wrap(self.denoiser, request)

    @property
    def nfe(self) -> float:
        """Function evaluations so far: calls of the network, by guides too, the mean over the rows of the request."""
        return sum(self._asked) / self._rows

    def apply_guides(self, xs: Tensor, s: Float[Tensor, " b"], rng: Rng) -> Tensor:
        """The state a sampler has stepped to, as the guides change it, the first guide first."""
        for number, guide in enumerate(self.guides):
            xs = guide.after(xs, s, batch=self.batch, rng=rng.fork("guide").fork(number))
        return xs
