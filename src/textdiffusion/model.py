"""A model: the parts of a configuration, built and put together."""

from __future__ import annotations

from typing import Any

from torch import nn

from .config import Config
from .samplers.step import Sampler, require


class Model(nn.Module):
    """Codec, process, noise density, denoiser, objective and likelihood as one module, and the sampler it is meant for.

    So the parts' learned state (embeddings, warps, schedules) is saved, averaged and synchronised with the weights.
    """

    # Parts are duck-typed by their protocols; which ones fit together is the recipe's business.
    codec: Any
    process: Any
    density: Any
    denoiser: Any
    objective: Any
    likelihood: Any

    def __init__(self, config: Config, vocab: int) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build(vocab)
        self.process = config.process.build(self.codec)
        self.density = config.density.build(self.codec, self.process)
        self.denoiser = config.denoiser.build(config.trunk.build(), self.codec, self.process)
        self.objective = config.objective.build()
        self.likelihood = config.likelihood.build()
        self.sampler: Sampler = config.sampler.build()
        require(self.sampler, self.process)
