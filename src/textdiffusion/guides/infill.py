"""Given tokens for models that were not trained with conditioning masks."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..batch import Batch
from ..codecs.table import TableCodec
from ..networks.denoisers import Denoiser
from ..prediction import Prediction, certain
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from ..samplers.step import Request
from . import Wrapped


class GivenTokens:
    """Replacement: at the given positions the prediction is the given token, and the state is its own noised copy."""

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(
        self, ids: Int[Tensor, "b l"], given: Bool[Tensor, "b l"], codec: TableCodec, process: GaussianProcess
    ) -> None:
        self.ids, self.given, self.codec, self.process = ids, given, codec, process

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions that are certain of the given tokens."""

        def knowing(prediction: Prediction, batch: Batch) -> Prediction:
            logits = prediction.logits
            known = torch.where(self.given[..., None], certain(self.ids, logits), logits)
            return prediction.guided(known, self.given)

        return Wrapped(denoiser, knowing)

    def after(self, xs: Tensor, s: Float[Tensor, " b"], *, batch: Batch, rng: Rng) -> Tensor:
        """The given tokens at the noise level of s."""
        noisy = self.process.corrupt(self.codec.encode(self.ids), s, rng=rng)
        return torch.where(self.given[..., None], noisy, xs)
