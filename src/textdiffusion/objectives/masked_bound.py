"""The Rao-Blackwellised bound of the absorbing process, for training and for likelihood."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..batch import Batch
from ..model import Model
from ..processes.absorbing import AbsorbingProcess
from ..processes.densities import stratified
from ..randomness import Rng
from . import Loss, per_token


class MaskedBound(nn.Module):
    """E_t [ rate(t) / p(t) * sum over masked i of -log p(x0_i | x_t) ], nats per row (MDLM, eq. 10; MD4, eq. 4).

    The bound's weight 1/t makes gradients noisy where little is masked. `max_weight` cuts it in training, which is
    biased as a bound and better as a teacher; the bound itself is reported uncut as the part `bound`.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def __init__(self, max_weight: float | None = 3.0) -> None:
        super().__init__()
        self.max_weight = max_weight

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        t = model.density.quantile(stratified(rng.fork("t"), batch.total or len(batch.ids)))
        clean = model.codec.encode(batch.ids)
        xt = torch.where(batch.noised, model.process.corrupt(clean, t, rng=rng.fork("noise")), clean)
        masked = (xt == model.process.mask) & batch.noised
        nats = model.denoiser(xt, t, batch=batch).nll(batch.ids, masked).sum(-1)
        weight = model.process.schedule.rate(t) * torch.exp(-model.density.log_prob(t))
        bound = per_token(nats * weight, batch)
        kept = weight if self.max_weight is None else weight.clamp(max=self.max_weight)
        total = per_token(nats * kept, batch).mean()
        masked_nll = nats.sum() / masked.sum().clamp(min=1)
        return Loss(total, {"bound": bound.mean().detach(), "masked_nll": masked_nll.detach()})


class MaskedLikelihood(nn.Module):
    """An upper bound on -log p(x), nats per row: (n / k) * sum over masked i of -log p(x0_i | x), with exactly k masks.

    With k uniform in 1 .. n it equals the continuous-time bound and varies less (RADD, eq. 3.8; LLaDA's evaluation).
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; k is stratified over the rows."""
        noised = batch.noised
        n = noised.sum(-1)
        k = (stratified(rng.fork("k"), batch.total or len(n)) * n).floor().clamp(max=n - 1) + 1
        order = torch.where(noised, rng.fork("order").uniform(noised.shape[1]), 2.0).argsort(-1).argsort(-1)
        masked = noised & (order < k[:, None])
        xt = torch.where(masked, model.process.mask, batch.ids)
        t = model.process.schedule.time(1.0 - k / n.clamp(min=1))
        return model.denoiser(xt, t, batch=batch).nll(batch.ids, masked).sum(-1) * n / k.clamp(min=1)
