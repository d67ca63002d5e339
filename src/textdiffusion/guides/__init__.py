"""Guides: everything that changes what a denoiser predicts, or where a sampler steps. They compose in a tuple."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..batch import Batch
from ..networks.denoisers import Denoiser
from ..prediction import Prediction
from ..randomness import Rng

if TYPE_CHECKING:
    from ..samplers.step import Request

Change = Callable[[Prediction, Tensor, Tensor, Batch], Prediction]  # said of x_t, at t, of a batch


@runtime_checkable
class Guide(Protocol):
    """`wrap` changes predictions, `after` the state a sampler has stepped to. `processes` are those it can act on.

    `request` is what is being sampled as a whole: a denoiser may be asked about some of its rows, or of its positions.
    """

    processes: ClassVar[tuple[type, ...]]

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser: ...

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor: ...


class Predicting:
    """A guide that changes predictions alone, of any process unless it says which."""

    processes: ClassVar[tuple[type, ...]] = (object,)

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """Nothing."""
        return xs


class Outermost:
    """A guide that acts on what all others have said, wherever it stands among them."""


class Wrapped:
    """A denoiser whose predictions pass through a function, which may also ask for x_t, t and the batch.

    `noise_aware`: what it makes of them depends on t, if the denoiser sees it or not.
    """

    def __init__(self, denoiser: Denoiser, change: Change, noise_aware: bool = False) -> None:
        self.denoiser, self.change = denoiser, change
        self.time_free, self.self_conditioning = denoiser.time_free and not noise_aware, denoiser.self_conditioning

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction:
        return self.change(self.denoiser(xt, t, batch=batch, self_cond=self_cond), xt, t, batch)
