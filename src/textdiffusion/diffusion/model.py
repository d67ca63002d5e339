"""A model: the parts of a configuration, built and put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.errors import UserError
from .prediction import Prediction

if TYPE_CHECKING:
    from ..config.config import Config
    from ..samplers.base import Sampler


@runtime_checkable
class Settles(Protocol):
    """A part that keeps a state of its own beside what the optimizer moves."""

    def settle(self) -> None: ...


class Model(nn.Module):
    """Codec, process, noise density, denoiser, objective and likelihood as one module, and the sampler it is meant for.

    So the parts' learned state (embeddings, warps, schedules) is saved, averaged and synchronised with the weights.
    """

    # Parts are duck-typed by their protocols; each refuses what it cannot work with.
    codec: Any
    process: Any
    density: Any
    denoiser: Any
    objective: Any
    likelihood: Any
    tuned: Tensor | None
    """Times at even shares of the way from clean to noise, the sampling grid tuned after training (None: not tuned)."""

    def __init__(self, config: Config, vocab: int) -> None:
        from ..networks.labels import Labels
        from ..samplers.base import require
        from ..samplers.masked_view import obstacle

        super().__init__()
        self.config = config
        codec: Any = config.codec.build(vocab)
        process: Any = config.process.build(codec)
        self.codec, self.process = codec, process
        self.density = config.density.build(codec, process)
        trunk = config.trunk.build()
        denoiser: Any = config.denoiser.build(trunk, codec, process)
        denoiser.gives, self.denoiser = config.text.gives, denoiser
        if config.text.labels:
            self.denoiser.labels = Labels(len(config.text.labels), trunk.width)
        self.objective = config.objective.build()
        self.likelihood = config.likelihood.build()
        self.sampler: Sampler = config.sampler.build()
        self.register_buffer("tuned", None, persistent=False)
        acting: tuple[Any, ...] = (self.objective, self.likelihood)
        for part in acting:
            require(part, self.process)
        if why_not := obstacle(self.sampler, self):
            raise UserError(why_not)

    @property
    def own(self) -> Model:
        """The model of the run's own noise: this one, unless it is that model seen in masks."""
        return self

    def settle(self) -> None:
        """Lets such parts move on: once after every step of the optimizer, however the batch was cut up."""
        parts: tuple[Any, ...] = (self.density, self.objective)
        for part in parts:
            if isinstance(part, Settles):
                part.settle()


@runtime_checkable
class Denoiser(Protocol):
    """The network with its parameterisation.

    `time_free`: the prediction depends on x_t alone, so it can be cached. `self_conditioning`: it takes its own earlier
    estimate of the clean state, in training, sampling and evaluation alike.
    """

    time_free: bool
    self_conditioning: bool

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction: ...
