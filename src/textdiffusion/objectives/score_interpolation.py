"""Cross-entropy with score interpolation: the objective of CDCD."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..batch import Batch
from ..model import Model
from ..processes.densities import stratified
from ..processes.gaussian import GaussianProcess
from ..randomness import Rng
from . import Loss, per_token


def self_condition(
    model: Model, xt: Float[Tensor, "b l d"], t: Float[Tensor, " b"], batch: Batch, coin: Bool[Tensor, " b"]
) -> Float[Tensor, "b l d"]:
    """The model's own first estimate of the clean state for the rows `coin` chooses, zeros elsewhere; no gradient."""
    estimate = torch.zeros_like(xt)
    chosen = coin.nonzero()[:, 0]
    with torch.no_grad():
        estimate[chosen] = model.denoiser(xt[chosen], t[chosen], batch=batch.select(chosen)).mean
    return estimate


def alternate_coin(rng: Rng) -> Bool[Tensor, " b"]:
    """A fair coin per row that heads for every second row of the global batch: half of any batch, whichever half."""
    return (rng.rows + (rng.shared_uniform() < 0.5)) % 2 == 0


class ScoreInterpolation(nn.Module):
    """Cross-entropy of the clean tokens, averaged over a row's noised positions, then over rows (CDCD, section 3.1).

    The draws of t follow the model's density, and are its only weighting; what the density learns from the losses is
    added to the total. Where the denoiser takes self-conditioning, half of the rows see its own first estimate.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        t = model.density.quantile(stratified(rng.fork("t"), batch.total or len(batch.ids)))
        x0 = model.codec.encode(batch.ids)
        xt = torch.where(batch.noised[..., None], model.process.corrupt(x0, t, rng=rng.fork("noise")), x0)
        estimate = None
        if model.denoiser.self_conditioning:
            estimate = self_condition(model, xt.detach(), t, batch, alternate_coin(rng.fork("self-conditioning")))
        nats = model.denoiser(xt, t, batch=batch, self_cond=estimate).nll(batch.ids, batch.noised).sum(-1)
        row = per_token(nats, batch)
        fit = model.density.fit_loss(t, row)
        total = row.mean()
        return Loss(total + fit, {"cross_entropy": total.detach(), "density_fit": fit.detach()})
