"""The exact likelihood of a masked model that reveals its text in a deterministic order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, cast

import torch

from ..core.batch import Batch
from ..core.cancellation import check_cancelled
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Mask, PerRow
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.wave import WaveProcess
from .unmasking import Order, Unmasking, masks_after_step

DETERMINISTIC_ORDERS = ("left", "confidence", "margin", "entropy")

MAX_LOGITS = 1 << 26  # in memory at once: 256 MiB in float32


@dataclass(frozen=True, kw_only=True)
class OrderLikelihood:
    """-log p(x) in nats per row, where p is the distribution of the texts that `Unmasking` writes in the same order.

    Step k reveals the positions S_k, which the order takes from the predictions given the tokens revealed so far, never
    from the tokens it is about to reveal. So x alone determines all S_k, p sums to 1 over all texts, and (DUEL,
    arXiv:2603.01367)

        log p(x) = sum over k of sum over i in S_k of log p(x_i | x at S_1, ..., S_{k-1} and at given positions).

    It is called like an `objectives.base.Likelihood`. `order`, `block_size` and `spaced` are those of `Unmasking`. A
    row with n target positions takes ceil(n / per_step) steps, which split the positions evenly, and as many network
    calls. With one position per step and an ideal denoiser every order gives the likelihood of the data. In a packed
    row the steps are those of the whole row. Under a `MaskedView`, p is the distribution given the noise of each row.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess, WaveProcess)
    exact: ClassVar[bool] = True

    order: str = "entropy"
    per_step: int = 1
    block_size: int = 0
    spaced: bool = True

    def __post_init__(self) -> None:
        if self.order not in DETERMINISTIC_ORDERS:
            orders = ", ".join(DETERMINISTIC_ORDERS)
            raise UserError(f"The order is {self.order!r}; an exact likelihood needs a deterministic one: {orders}.")
        check_bounds(self, per_step=(1, None), block_size=(0, None))

    @classmethod
    def of_sampler(cls, sampler: Unmasking, num_tokens: int, steps: int) -> OrderLikelihood | None:
        """The likelihood of the texts of `num_tokens` tokens that `sampler` draws at temperature 1 in `steps` steps.

        None where there is none: the order is random, the number of tokens revealed together varies (as with a
        threshold), tokens are masked again, or no `per_step` takes exactly that many steps.
        """
        steps = min(steps, num_tokens)
        per_step = -(-num_tokens // steps)
        even = Unmasking(
            order=sampler.order,
            block_size=sampler.block_size,
            spaced=sampler.spaced,
            steps=sampler.steps,
            temperature=sampler.temperature,
        )
        if sampler != even or sampler.order not in DETERMINISTIC_ORDERS or -(-num_tokens // per_step) != steps:
            return None
        return cls(order=sampler.order, per_step=per_step, block_size=sampler.block_size, spaced=sampler.spaced)

    @property
    def protocol(self) -> dict[str, str | int | bool]:
        """The facts that comparable figures share: another order is another distribution over texts."""
        return {"order": self.order, "per_step": self.per_step, "block_size": self.block_size, "spaced": self.spaced}

    @cached_property
    def _sampler(self) -> Unmasking:
        return Unmasking(order=cast(Order, self.order), block_size=self.block_size, spaced=self.spaced)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng, hidden: Mask | None = None) -> PerRow:
        """Nats per row; `rng` has no effect. Target positions that are `hidden` stay masked and are not measured."""
        hidden = torch.zeros_like(batch.target_mask) if hidden is None else hidden
        rows = torch.arange(len(batch.tokens), device=batch.tokens.device)
        chunk_size = max(1, MAX_LOGITS // (batch.tokens.shape[1] * model.process.num_states))
        chunks = rows.split(chunk_size)
        return torch.cat([self._nats(model, batch.select(rows), rng.select(rows), hidden[rows]) for rows in chunks])

    def _nats(self, model: DiffusionModel, batch: Batch, rng: Rng, hidden: Mask) -> PerRow:
        process, target = model.process, batch.target_mask & ~hidden
        num_targets = target.sum(-1)
        num_noised = batch.target_mask.sum(-1)
        num_steps = -(-num_targets // self.per_step)
        x = torch.where(batch.target_mask, process.mask, batch.tokens)
        nats = torch.zeros(len(x), device=x.device)
        for step in range(int(num_steps.max())):
            check_cancelled()
            rows = (num_steps > step).nonzero()[:, 0]
            masked = process.is_noisy(x[rows]) & target[rows]
            num_masked = masked.sum(-1)
            due = num_masked - masks_after_step(step, num_targets[rows], num_steps[rows])
            num_hidden = (num_noised - num_targets)[rows]
            t = process.schedule.time(1.0 - (num_masked + num_hidden) / num_noised[rows])
            logits = model.denoiser(x[rows], t, batch=batch.select(rows)).logits
            chosen = self._sampler.choose(logits[masked].softmax(-1), masked, due, rng=rng.select(rows))
            tokens = batch.tokens[rows]
            step_nats = torch.zeros_like(chosen, dtype=logits.dtype)
            step_nats[chosen] = -logits[chosen].log_softmax(-1).gather(-1, tokens[chosen][:, None])[:, 0]
            nats[rows] += step_nats.sum(-1)
            x[rows] = torch.where(chosen, tokens, x[rows])
        return nats
