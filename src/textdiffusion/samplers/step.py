"""The contract of sampling: a request goes in, steps come out, and every view is a consumer of those steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..batch import Batch
from ..errors import UserError
from ..guides import Outermost
from ..randomness import Rng

if TYPE_CHECKING:
    from ..guides import Guide
    from ..model import Model
    from ..networks.denoisers import Denoiser


@dataclass(frozen=True)
class Request:
    """What to generate: the rows of `batch` (given positions are kept exactly), in `steps` steps, under `guides`.

    Where the batch is a part of longer texts, `whole` are these as they stand, and the part begins at `start` in them.
    """

    batch: Batch
    steps: int
    guides: tuple[Guide, ...] = ()
    whole: Batch | None = None
    start: int = 0

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
    ids: Int[Tensor, "b l"]
    confidence: Float[Tensor, "b l"]
    state: Tensor
    calls: float = 0.0


@runtime_checkable
class Sampler(Protocol):
    """Steps a state of noise back to text. `processes` are those it can drive."""

    processes: ClassVar[tuple[type, ...]]

    def __call__(self, model: Model, request: Request, *, rng: Rng) -> Iterator[Step]: ...


@runtime_checkable
class Acts(Protocol):
    """A sampler, guide, objective or likelihood, which says what processes it can act on."""

    processes: ClassVar[tuple[type, ...]]


def require(part: Acts, process: object) -> None:
    """Refuses a part that cannot act on a process, with a sentence that names those it can."""
    if not isinstance(process, part.processes):
        allowed = " or ".join(p.__name__ for p in part.processes)
        raise UserError(f"{type(part).__name__} cannot act on {type(process).__name__}: it needs {allowed}.")


def guided(model: Model, request: Request, denoiser: Denoiser | None = None) -> Denoiser:
    """`denoiser`, or the model's own, under the guides of a request, the first innermost but for `Outermost` ones."""
    denoiser = model.denoiser if denoiser is None else denoiser
    for guide in sorted(request.guides, key=lambda guide: isinstance(guide, Outermost)):
        require(guide, model.process)
        denoiser = guide.wrap(denoiser, request)
    return denoiser


def steered(xs: Tensor, s: Float[Tensor, " b"], request: Request, rng: Rng) -> Tensor:
    """The state a sampler has stepped to, as the guides of a request change it, the first guide first."""
    for number, guide in enumerate(request.guides):
        xs = guide.after(xs, s, batch=request.batch, rng=rng.fork("guide").fork(number))
    return xs


def shown_confidence(
    before: Float[Tensor, "b l"], shown: Bool[Tensor, "b l"], xs: Int[Tensor, "b l"], logits: Float[Tensor, "b l v"]
) -> Float[Tensor, "b l"]:
    """`before`, with the probability of the token of `xs` at the positions that were just `shown`."""
    chosen = logits[shown].softmax(-1).gather(-1, xs[shown][:, None])[:, 0]
    return before.masked_scatter(shown, chosen)
