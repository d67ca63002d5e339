"""The Rao-Blackwellised bound of the absorbing process: a training loss and a likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Mask, NoiseTimes, PerRow, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.blocks import BlockProcess
from ..diffusion.model import DiffusionModel
from .base import Likelihood, Loss, Objective, add_noise, per_token


@dataclass(frozen=True)
class MaskedELBO(Objective):
    """E_t[w(t) / p(t) * sum over masked i of -log p(x0_i | x_t)], nats per token (MDLM, eq. 10; MD4, eq. 4).

    A row has one t, or one for each of its blocks if the process has blocks (BD3-LM, eq. 8: the sum over blocks).

    The weight w(t) = 1 / t makes gradients noisy where few tokens are masked. Training clips it at `max_weight` (0: no
    clipping), which biases the bound but trains better; the logged part `bound` is not clipped.

    If `complementary`, the loss is the mean over the masks and their complement, which has the level 1 - t, so every
    token is predicted once (Fast-dLLM v2). It needs the schedule `linear`. With `max_weight` 1 it is the cross-entropy
    of all tokens, halved.
    """

    max_weight: float = 3.0
    complementary: bool = False

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, BlockProcess)

    def __post_init__(self) -> None:
        check_bounds(self, max_weight=(0.0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row or block, stratified over the global batch."""
        t = model.time_density.icdf(model.process.stratified_uniforms(batch, rng=rng.fork("t")))
        importance = torch.exp(-model.time_density.log_prob(t))
        xt = add_noise(model, batch.tokens, t, batch, rng=rng.fork("noise"))
        masked = (xt == model.process.mask) & batch.target_mask
        loss = self._loss(model, batch, xt, t, importance)
        if not self.complementary:
            return loss
        xt = torch.where(batch.target_mask & ~masked, model.process.mask, batch.tokens)
        other = self._loss(model, batch, xt, (1.0 - t).clamp(min=1e-6), importance)
        parts = {name: 0.5 * (value + other.parts[name]) for name, value in loss.parts.items()}
        return Loss(0.5 * (loss.total + other.total), parts)

    def _loss(self, model: DiffusionModel, batch: Batch, xt: Tokens, t: NoiseTimes, importance: Tensor) -> Loss:
        masked = (xt == model.process.mask) & batch.target_mask
        nats = model.denoiser(xt, t.squeeze(1), batch=batch).nll(batch.tokens, masked)
        weight = model.process.schedule.loss_weight(t) * importance
        bound = per_token((nats * weight).sum(-1), batch)
        clipped = weight.clamp(max=self.max_weight) if self.max_weight else weight
        total = per_token((nats * clipped).sum(-1), batch).mean()
        masked_nll = nats.sum() / masked.sum().clamp(min=1)
        return Loss(total, {"bound": bound.mean().detach(), "masked_nll": masked_nll.detach()})


@dataclass(frozen=True)
class MaskedLikelihood(Likelihood):
    """An upper bound on -log p(x), nats per row: (n / k) * sum over masked i of -log p(x0_i | x), with exactly k masks.

    With k uniform in 1 .. n it equals the continuous-time bound and has less variance (RADD, eq. 3.8; LLaDA's
    evaluation). If the process has blocks, each has its own n and k, and the bound is the sum over blocks.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, BlockProcess)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One unbiased estimate per row; k is stratified over the rows."""
        target, starts = batch.target_mask, model.process.block_starts(batch)
        n = _count_per_block(target, starts)
        k = (model.process.stratified_uniforms(batch, rng=rng.fork("k")) * n).floor().clamp(max=n - 1) + 1
        masked = target & (_random_ranks(target, starts, rng.fork("order")) < k)
        xt = torch.where(masked, model.process.mask, batch.tokens)
        t = model.process.schedule.time(1.0 - k / n.clamp(min=1))
        nats = model.denoiser(xt, t.squeeze(1), batch=batch).nll(batch.tokens, masked)
        return (nats * n / k.clamp(min=1)).sum(-1)


def _count_per_block(target: Mask, starts: Int[Tensor, "#b #l"]) -> Int[Tensor, "b #l"]:
    """The number of target positions in the block of each position; a block is known by where it starts."""
    if starts.shape[1] == 1:
        return target.sum(-1, keepdim=True)
    block = starts.expand_as(target)
    return torch.zeros_like(block).scatter_add(1, block, target.long()).gather(1, block)


def _random_ranks(target: Mask, starts: Int[Tensor, "#b #l"], rng: Rng) -> Int[Tensor, "b l"]:
    """The rank, from 0, of each target position in a random order of its block; other positions rank last."""
    shuffled = torch.where(target, rng.uniform(target.shape[1]), 2.0).argsort(-1)
    # A stable sort by block keeps the random order inside each; a block's ranks then begin at its start.
    by_block = starts.expand_as(target).gather(1, shuffled).argsort(stable=True, dim=-1)
    return shuffled.gather(1, by_block).argsort(-1) - starts
