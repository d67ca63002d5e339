"""Labels as an input of denoisers."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.batch import Batch


class LabelEmbedding(nn.Embedding):
    """A vector for each of `count` labels, numbered from 1; the number 0, no label, adds nothing."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count + 1, width, padding_idx=0)
        nn.init.normal_(self.weight, std=0.5)
        self.weight.data[0].zero_()


class LabelConditioned(nn.Module):
    """A denoiser that is told a row's label where `labels` are set."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: LabelEmbedding | None = None

    def add_label(self, features: Float[Tensor, "b l w"], batch: Batch) -> Float[Tensor, "b l w"]:
        """The features at every position with the vector of the row's label."""
        if self.labels is None or batch.labels is None:
            return features
        numbers: Int[Tensor, " b"] = batch.labels
        return features + self.labels(numbers)[:, None]
