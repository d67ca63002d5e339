"""Settings that denoisers have in common: what they work with, and their n-gram tables."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..core.registry import Part, check_bounds


class DenoiserConfig(Part, ABC):
    """A network with its parameterisation: a noisy state x_t in, a prediction of the clean tokens out.

    `processes`, `codecs` and `backbones` are the classes of modules that it works with. `needs_noise_level`: it always
    passes the noise level to the backbone, which therefore needs modulation.
    """

    processes: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    codecs: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    backbones: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    needs_noise_level: ClassVar[bool] = False


@dataclass(frozen=True)
class NgramDenoiserConfig(DenoiserConfig, ABC):
    """A denoiser whose input is token ids.

    `ngram_dim`: size of the vectors that are looked up for groups of up to `ngram_size` neighbouring tokens (0: none).
    `ngram_rows`: largest number of rows of a table; larger sets of groups share rows by hashing.
    """

    ngram_dim: int = 0
    ngram_size: int = 3
    ngram_rows: int = 1 << 14

    def __post_init__(self) -> None:
        check_bounds(self, ngram_dim=(0, None), ngram_size=(2, 4), ngram_rows=(1, None))
