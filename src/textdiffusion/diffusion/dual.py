"""The process of dual training: masks at random, or from the right."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.registry import builds
from .absorbing import Absorbing, AbsorbingProcess


@dataclass(frozen=True)
class DualAbsorbing(Absorbing):
    """Tokens become masks; the network can also predict them from left to right."""


@builds(DualAbsorbing)
class DualProcess(AbsorbingProcess):
    """The absorbing process of a denoiser that also predicts the next token, by its method `predict_next`.

    So what works with masks works with it, and what works from left to right too: the two are different distributions
    over texts, of the same weights.
    """
