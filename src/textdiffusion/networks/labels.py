"""Labels as an input of denoisers."""

from __future__ import annotations

from torch import nn

from ..core.batch import Batch
from ..core.types import Hidden


class LabelEmbedding(nn.Embedding):
    """A vector for each of `num_labels` labels, numbered from 1; number 0 means no label, and its vector stays zero."""

    def __init__(self, num_labels: int, width: int) -> None:
        super().__init__(num_labels + 1, width, padding_idx=0)
        nn.init.normal_(self.weight, std=0.5)
        self.weight.data[0].zero_()


class LabelConditioned(nn.Module):
    """A denoiser that adds the embedding of a row's label to its features, if `labels` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: LabelEmbedding | None = None

    def add_label(self, features: Hidden, batch: Batch) -> Hidden:
        """The features, with the vector of the row's label added at every position."""
        if self.labels is None or batch.labels is None:
            return features
        return features + self.labels(batch.labels)[:, None]
