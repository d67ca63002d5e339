"""A model: the parts of a configuration, built and put together."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from .config import Config
from .errors import UserError
from .networks.labels import Labels
from .samplers.step import Sampler, require


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
        from .samplers.in_masks import obstacle  # which makes models itself

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
