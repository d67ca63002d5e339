"""What denoisers have in common: the settings of their partners and n-gram tables, and labels as an input."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..core.batch import Batch, position_ids
from ..core.registry import Part, check_bounds
from ..core.types import Hidden, NoiseTimes
from .attention import attention_mask
from .backbone import Backbone


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


class LabelEmbedding(nn.Embedding):
    """A vector for each of `num_labels` labels, numbered from 1; number 0 means no label, and its vector stays zero."""

    def __init__(self, num_labels: int, width: int) -> None:
        super().__init__(num_labels + 1, width, padding_idx=0)
        nn.init.normal_(self.weight, std=0.5)
        self.weight.data[0].zero_()


class LabelConditioned(nn.Module):
    """A denoiser that adds the embedding of a row's label to its features, if `labels` is set."""

    backbone: Backbone

    def __init__(self) -> None:
        super().__init__()
        self.labels: LabelEmbedding | None = None

    def add_label(self, features: Hidden, batch: Batch) -> Hidden:
        """The features, with the vector of the row's label added at every position."""
        if self.labels is None or batch.labels is None:
            return features
        return features + self.labels(batch.labels)[:, None]

    def run_backbone(self, features: Hidden, noise_level: NoiseTimes, batch: Batch) -> Hidden:
        """The backbone's output, where all positions of an example see each other; the label is added to the input."""
        mask = attention_mask("full", batch)
        return self.backbone(self.add_label(features, batch), noise_level, position_ids(batch), mask)
