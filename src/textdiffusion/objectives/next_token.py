"""Left-to-right prediction: the exact likelihood, for training and for evaluation."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.model import DiffusionModel
from .base import Loss, per_token


class NextTokenLikelihood(nn.Module):
    """-log p(x) in nats per row, exact: the sum over positions of -log p(x_i | x_{<i}).

    Given tokens are conditioned on from their place on: the positions before them do not see them. So this is exact for
    the law that infilling draws from, which for a given prefix is that of the model.
    """

    exact = True
    processes: ClassVar[tuple[type, ...]] = (AutoregressiveProcess,)

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """There is nothing to draw."""
        t = torch.zeros(len(batch.tokens), device=batch.tokens.device)
        return model.denoiser(batch.tokens, t, batch=batch).nll(batch.tokens, batch.target_mask).sum(-1)


class NextToken(nn.Module):
    """Cross-entropy per token."""

    processes: ClassVar[tuple[type, ...]] = (AutoregressiveProcess,)

    def __init__(self) -> None:
        super().__init__()
        self.nats = NextTokenLikelihood()

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """The mean over rows of nats per token."""
        total = per_token(self.nats(model, batch, rng=rng), batch).mean()
        return Loss(total, {"bound": total.detach()})
