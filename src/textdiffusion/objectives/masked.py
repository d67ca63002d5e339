"""The Rao-Blackwellised bound of the absorbing process, for training and for likelihood."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.blocks import BlockProcess
from ..diffusion.model import DiffusionModel
from .base import Loss, add_noise, per_token


class MaskedELBO(nn.Module):
    """E_t [ rate(t) / p(t) * sum over masked i of -log p(x0_i | x_t) ], nats per row (MDLM, eq. 10; MD4, eq. 4).

    The process says whether a row has one t or each of its blocks has its own (BD3-LM, eq. 8: the sum over blocks).
    The bound's weight 1/t makes gradients noisy where little is masked. `max_weight` cuts it in training, which is
    biased as a bound and better as a teacher; the bound itself is reported uncut as the part `bound`.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, BlockProcess)

    def __init__(self, max_weight: float | None = 3.0) -> None:
        super().__init__()
        self.max_weight = max_weight

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row or block, stratified over the global batch."""
        t = model.time_density.icdf(model.process.stratified_uniforms(batch, rng=rng.fork("t")))
        clean = model.codec.encode(batch.tokens)
        xt = add_noise(model, clean, t, batch, rng=rng.fork("noise"))
        masked = (xt == model.process.mask) & batch.target_mask
        nats = model.denoiser(xt, t.squeeze(1), batch=batch).nll(batch.tokens, masked)
        weight = model.process.schedule.loss_weight(t) * torch.exp(-model.time_density.log_prob(t))
        bound = per_token((nats * weight).sum(-1), batch)
        kept = weight if self.max_weight is None else weight.clamp(max=self.max_weight)
        total = per_token((nats * kept).sum(-1), batch).mean()
        masked_nll = nats.sum() / masked.sum().clamp(min=1)
        return Loss(total, {"bound": bound.mean().detach(), "masked_nll": masked_nll.detach()})


class MaskedLikelihood(nn.Module):
    """An upper bound on -log p(x), nats per row: (n / k) * sum over masked i of -log p(x0_i | x), with exactly k masks.

    With k uniform in 1 .. n it equals the continuous-time bound and varies less (RADD, eq. 3.8; LLaDA's evaluation).
    Where the process has blocks, each has its own n and k, and the bound is their sum.
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, BlockProcess)

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; k is stratified over the rows."""
        noised, starts = batch.target_mask, model.process.block_starts(batch)
        n = _totals(noised, starts)
        k = (model.process.stratified_uniforms(batch, rng=rng.fork("k")) * n).floor().clamp(max=n - 1) + 1
        masked = noised & (_ranks(noised, starts, rng.fork("order")) < k)
        xt = torch.where(masked, model.process.mask, batch.tokens)
        t = model.process.schedule.time(1.0 - k / n.clamp(min=1))
        nats = model.denoiser(xt, t.squeeze(1), batch=batch).nll(batch.tokens, masked)
        return (nats * n / k.clamp(min=1)).sum(-1)


def _totals(noised: Bool[Tensor, "b l"], starts: Int[Tensor, "#b #l"]) -> Int[Tensor, "b #l"]:
    """The number of noised positions in the part of its row that each position belongs to."""
    if starts.shape[1] == 1:
        return noised.sum(-1, keepdim=True)
    part = starts.expand_as(noised)
    return torch.zeros_like(part).scatter_add(1, part, noised.long()).gather(1, part)


def _ranks(noised: Bool[Tensor, "b l"], starts: Int[Tensor, "#b #l"], rng: Rng) -> Int[Tensor, "b l"]:
    """The noised positions of each part in a random order: their numbers from 0."""
    shuffled = torch.where(noised, rng.uniform(noised.shape[1]), 2.0).argsort(-1)
    # Sorted by part, and inside a part still shuffled: the numbers of a part are those of its places.
    by_part = starts.expand_as(noised).gather(1, shuffled).argsort(stable=True, dim=-1)
    return shuffled.gather(1, by_part).argsort(-1) - starts
