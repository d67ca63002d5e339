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

    def update_average(self) -> None: ...


class DiffusionModel(nn.Module):
    """Codec, process, noise density, denoiser, objective and likelihood as one module, and the sampler it is meant for.

    So the parts' learned state (embeddings, warps, schedules) is saved, averaged and synchronised with the weights.
    """

    # Parts are duck-typed by their protocols; each refuses what it cannot work with.
    codec: Any
    process: Any
    time_density: Any
    denoiser: Any
    objective: Any
    likelihood: Any
    tuned: Tensor | None
    """Times at even shares of the way from clean to noise, the sampling grid tuned after training (None: not tuned)."""

    def __init__(self, config: Config, vocab_size: int) -> None:
        from ..networks.labels import LabelEmbedding
        from ..samplers.base import check_compatible
        from ..samplers.masked_view import sampler_incompatibility

        super().__init__()
        self.config = config
        codec: Any = config.codec.build(vocab_size)
        process: Any = config.process.build(codec)
        self.codec, self.process = codec, process
        self.time_density = config.time_density.build(codec, process)
        backbone = config.backbone.build()
        denoiser: Any = config.denoiser.build(backbone, codec, process)
        denoiser.trained_with_conditioning, self.denoiser = config.text.gives_tokens, denoiser
        if config.text.labels:
            self.denoiser.labels = LabelEmbedding(len(config.text.labels), backbone.width)
        self.objective = config.objective.build()
        self.likelihood = config.likelihood.build()
        self.sampler: Sampler = config.sampler.build()
        self.register_buffer("tuned", None, persistent=False)
        acting: tuple[Any, ...] = (self.objective, self.likelihood)
        for part in acting:
            check_compatible(part, self.process)
        if why_not := sampler_incompatibility(self.sampler, self):
            raise UserError(why_not)

    @property
    def own(self) -> DiffusionModel:
        """The model of the run's own noise: this one, unless it is that model seen in masks."""
        return self

    def update_average(self) -> None:
        """Lets such parts move on: once after every step of the optimizer, however the batch was cut up."""
        parts: tuple[Any, ...] = (self.time_density, self.objective)
        for part in parts:
            if isinstance(part, Settles):
                part.update_average()


@runtime_checkable
class Denoiser(Protocol):
    """The network with its parameterisation.

    `time_free`: the prediction depends on x_t alone, so it can be cached. `self_conditioning`: it takes its own earlier
    estimate of the clean state, in training, sampling and evaluation alike.
    """

    time_independent: bool
    self_conditioning: bool

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction: ...
