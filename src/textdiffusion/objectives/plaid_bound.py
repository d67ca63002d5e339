"""The likelihood bound of Gaussian processes as what training minimises: the objective of Plaid."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from ..batch import Batch
from ..model import Model
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import Loss, density_fit, per_token
from .gaussian_bound import missed_nats, prior_nats
from .noised import alternate_coin, noised, seen_times


class PlaidBound(nn.Module):
    """The bound of `GaussianLikelihood` with a learned decoder, in nats per token (Plaid, section 3).

    The denoiser is the network alone, so that it learns at every noise level.

    One row in `every` is decoded, from the lowest noise; the others are denoised at a noise level each; both are
    weighted by their share. The bound trains the network, the embeddings and the ends of the schedule; the noise
    density sees the integrand. All of it is float32.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, every: int = 8) -> None:
        super().__init__()
        self.every = every

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """One unbiased draw per row."""
        decoding = alternate_coin(rng.fork("decoding"), self.every)
        at = seen_times(model, batch, rng=rng)
        t = torch.where(decoding, 0.0, at)
        drawn = noised(model, batch, rng=rng, t=t)
        missed = missed_nats(model.process, drawn.x0, drawn.prediction.mean, t, batch)
        decoded = drawn.prediction.nll(batch.ids, batch.noised & decoding[:, None]).sum(-1)
        weighted = missed * torch.exp(-model.density.log_prob(at)) * self.every / (self.every - 1)
        nats = prior_nats(model.process, drawn.x0, batch) + torch.where(decoding, decoded * self.every, weighted)
        total = per_token(nats, batch).mean()
        fit = density_fit(model, at, per_token(missed, batch), ~decoding)
        return Loss(total + fit, {"bound": total.detach(), "density_fit": fit.detach()})
