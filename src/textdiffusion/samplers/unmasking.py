"""Unmasking in an order: which masks a step reveals, and how many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Logits, Mask, PerPosition, RowIndex
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.wave import WaveProcess
from .base import Request, Sampler, Step
from .token_state import TokenState, token_probs

Order = Literal["random", "confidence", "margin", "entropy", "left"]


@dataclass(frozen=True, kw_only=True)
class Unmasking(Sampler):
    """Reveals masks in an order: at random, from left to right, or where the model is most certain.

    For masked models; usually the best text for a given number of steps. `order` is random, left, or by the prediction:
    the highest probability (confidence), the largest gap between the two likeliest tokens (margin), the lowest entropy.
    With one token per step every order samples the data distribution, if the denoiser is ideal, because the order
    depends on predictions and not on the tokens drawn from them. Tokens revealed in one step are drawn independently,
    which is the only error.

    The masks of each row are split evenly over the steps (0 steps: one per token). With more steps than masks, each
    mask takes one step, and steps in which a row reveals nothing cost it no call. Options:

    - `spaced`: cut the masks of a row into as many segments as tokens are due and reveal the first in order of each.
      Otherwise (as in LLaDA) they are often adjacent, and adjacent tokens depend most on each other. No effect on left.
    - `threshold`: also reveal every mask whose likeliest token has a greater probability (1: none).
    - `leap_threshold`: also reveal the masks beside those above `threshold` whose likeliest token has a greater
      probability than this (1: none). A neighbour that is nearly certain adds little to what is known of them.
    - `stability`: `threshold` reveals only masks whose prediction has changed by at most this many nats (KL) since the
      row's last call (0: all; KLASS: Kim et al. 2025). What is about to change is decided later.
    - `edit`: after each step, hide as many tokens of a row as were due, the least confident but at most half of them,
      and replace those for which another token now has a greater probability than this by that token (1: none). It
      costs a call. New tokens are the likeliest and not drawn, so text is biased to the likely.
    - `entropy_bound`: also reveal masks in order while the sum of their entropies, except the largest, is at most this
      many nats, which bounds the error of drawing them together (0: none; EB-Sampler: Ben-Hamu et al. 2025).
    - `block_size`: reveal all masks of a block before those of the next (0: one block; LLaDA).
    - `greedy_below`: take the likeliest tokens while at most this fraction of a row is masked (0: never, 1: always);
      greedy tokens do not follow the data distribution.
    - `refine_rounds`: after that, mask `remask_fraction` of the positions again and reveal them, in this many rounds
      with a fraction that falls linearly. This preserves the distribution of an ideal denoiser and repairs the errors
      of a trained one. Steps are divided in proportion to the masks.
    """

    processes = (AbsorbingProcess, WaveProcess)
    min_steps = 0

    steps: int = 0
    order: Order = "random"
    threshold: float = 1.0
    leap_threshold: float = 1.0
    stability: float = 0.0
    edit: float = 1.0
    entropy_bound: float = 0.0
    block_size: int = 0
    greedy_below: float = 0.0
    refine_rounds: int = 0
    remask_fraction: float = 0.7
    spaced: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, threshold=(0.0, 1.0), entropy_bound=(0.0, None), block_size=(0, None))
        check_bounds(self, leap_threshold=(0.0, 1.0), stability=(0.0, None), edit=(0.0, 1.0))
        check_bounds(self, greedy_below=(0.0, 1.0), refine_rounds=(0, None), remask_fraction=(0.01, 1.0))
        if self.remask_fraction != type(self).remask_fraction and not self.refine_rounds:
            fraction = f"sampler.remask_fraction={self.remask_fraction:g}"
            raise UserError(f"{fraction} has no effect without sampler.refine_rounds.")
        for name in ("leap_threshold", "stability"):
            if self.threshold == 1.0 and (value := getattr(self, name)) != getattr(type(self), name):
                raise UserError(f"sampler.{name}={value:g} has no effect without sampler.threshold.")

    @property
    def keeps_tokens(self) -> bool:
        return not self.refine_rounds and self.edit == 1.0

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text. The `t` of a step is the fraction of the target positions that are masked."""
        yield from self.run(TokenState(model, request, rng=rng), rng=rng)

    def run(self, state: TokenState, *, rng: Rng) -> Iterator[Step]:
        """Steps of `state`."""
        process, batch = state.process, state.batch
        num_targets = batch.target_mask.sum(-1).clamp(min=1)
        yield state.as_step(0, 1.0)
        for fraction, first_step, end_step in self._rounds(state.steps):
            num_remasked = (num_targets * fraction).round()[:, None]
            remasked = rng.fork("again").fork(first_step).random_subset(batch.target_mask, num_remasked)
            state.x = state.x.masked_fill(remasked, process.mask)
            state.confidence = state.confidence.masked_fill(remasked, 0.0)
            num_start = state.maskable.sum(-1)
            row_steps = num_start.clamp(min=1, max=end_step - first_step)  # steps in which a row reveals tokens
            for i in range(first_step, end_step):
                num_masked = state.maskable.sum(-1)
                due = num_masked - masks_after_step(i - first_step, num_start, row_steps)
                if self.threshold < 1.0 or self.entropy_bound > 0.0:
                    due = torch.minimum(due.clamp(min=1), num_masked)
                self._reveal(state, due, num_masked, num_targets, rng.fork(i))
                if self.edit < 1.0:
                    self._edit(state, due, num_targets, rng.fork(i))
                yield state.as_step(i + 1, float((state.maskable.sum(-1) / num_targets).mean()))

    def _rounds(self, steps: int) -> list[tuple[float, int, int]]:
        """The fraction masked at the start of each round, its first step, and the step after its last.

        Rounds without a step are left out.
        """
        fractions = [1.0] + [self.remask_fraction * (1.0 - i / self.refine_rounds) for i in range(self.refine_rounds)]
        ends = [math.ceil(steps * part / sum(fractions) - 1e-9) for part in accumulate(fractions)]
        rounds = zip(fractions, [0, *ends[:-1]], ends, strict=True)
        return [(fraction, first_step, end_step) for fraction, first_step, end_step in rounds if first_step < end_step]

    def _reveal(self, state: TokenState, due: RowIndex, num_masked: RowIndex, num_targets: RowIndex, rng: Rng) -> None:
        """Reveals at least `due` masks of each row."""
        rows = (due > 0).nonzero()[:, 0]
        if not len(rows):
            return
        masked, schedule = state.maskable, state.process.schedule
        mask_fraction, row_rng = num_masked[rows] / num_targets[rows], rng.select(rows)
        prediction = state.denoiser(state.x[rows], schedule.time(1.0 - mask_fraction), batch=state.batch.select(rows))
        logits = prediction.confidence_logits
        stable = self._stable(state, logits, rows)[masked[rows]] if self.stability else None
        probs = logits[masked[rows]].softmax(-1)
        chosen = self.choose(probs, masked[rows], due[rows], rng=row_rng.fork("order"), stable=stable)
        probs = prediction.sample_joint(row_rng.fork("whole")).logits[chosen].softmax(-1)
        tokens = row_rng.fork("token").categorical_at(chosen, probs)
        greedy = (mask_fraction <= self.greedy_below)[:, None].expand_as(chosen)[chosen]
        tokens = torch.where(greedy, probs.argmax(-1), tokens)
        revealed = torch.zeros_like(masked)
        revealed[rows] = chosen
        s = schedule.time(1.0 - (num_masked - revealed.sum(-1)) / num_targets)
        state.update(state.x.masked_scatter(revealed, tokens), s, logits, rng, rows)

    def _edit(self, state: TokenState, due: RowIndex, num_targets: RowIndex, rng: Rng) -> None:
        """Replaces doubtful tokens, and measures the confidence of those that stay anew.

        As many as the step revealed are scored, the least confident, but at most half of the row's.
        """
        process, target = state.process, state.batch.target_mask
        revealed = ~process.is_noisy(state.x) & target
        order = state.confidence.masked_fill(~revealed, torch.inf).argsort(dim=-1, stable=True)
        hidden = revealed & (order.argsort(-1) < torch.minimum(due, revealed.sum(-1) // 2)[:, None])
        rows = hidden.any(-1).nonzero()[:, 0]
        if not len(rows):
            return
        x, hidden = state.x[rows], hidden[rows]
        seen = x.masked_fill(hidden, process.mask)
        mask_fraction = (process.is_noisy(seen) & target[rows]).sum(-1) / num_targets[rows]
        t = process.schedule.time(1.0 - mask_fraction)
        prediction = state.denoiser(seen, t, batch=state.batch.select(rows))
        if prediction.sample_joint(rng.fork("edit").select(rows)) is not prediction:
            raise UserError(
                "sampler.edit replaces single tokens, so it cannot keep a word or pattern that is required."
            )
        logits = prediction.confidence_logits
        top = logits.softmax(-1).max(-1)
        new = torch.where(hidden & (top.values > self.edit), top.indices, x)
        confidence = state.confidence[rows].masked_scatter(hidden, token_probs(logits, new, hidden))
        state.x = state.x.index_copy(0, rows, new)
        state.confidence = state.confidence.index_copy(0, rows, confidence)

    def _stable(self, state: TokenState, logits: Logits, rows: RowIndex) -> Mask:
        """Where predictions are as in the row's last call, up to `stability` nats (nowhere in its first)."""
        if state.logits is None:
            state.logits = logits.new_full((*state.x.shape, logits.shape[-1]), torch.nan)
        log_p, log_q = logits.log_softmax(-1), state.logits[rows].log_softmax(-1)
        state.logits[rows] = logits
        change = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0).sum(-1)
        return change <= self.stability

    def choose(
        self,
        probs: Float[Tensor, "n v"],
        masked: Mask,
        due: Int[Tensor, " b"],
        *,
        rng: Rng,
        stable: Bool[Tensor, " n"] | None = None,
    ) -> Mask:
        """The masks to reveal, at least `due` in each row, from the predictions at all `n` masks.

        Only `stable` ones count as certain (None: all may).
        """

        def at_masks(values: Float[Tensor, " n"]) -> PerPosition:
            return values.new_zeros(masked.shape).masked_scatter(masked, values)

        length = masked.shape[1]
        position = torch.arange(length, device=masked.device).expand(masked.shape)
        block = torch.where(masked, position // (self.block_size or length), length)
        in_block = masked & (block == block.amin(-1, keepdim=True))
        order = at_masks(self._priority(probs, masked, rng)).argsort(dim=-1, descending=True, stable=True)
        if self.spaced and self.order != "left":
            later = ~_first_of_segments(order.argsort(-1), in_block, due)
            order = order.gather(-1, later.gather(-1, order).byte().argsort(dim=-1, stable=True))
        order = order.gather(-1, block.gather(-1, order).argsort(dim=-1, stable=True))  # block after block
        rank = order.argsort(-1)
        extra = torch.zeros_like(masked)
        if self.threshold < 1.0:
            sure = at_masks(probs.amax(-1) if stable is None else probs.amax(-1) * stable)
            extra = sure > self.threshold
            extra |= _beside(extra) & (sure > self.leap_threshold)
        if self.entropy_bound > 0.0:
            entropy = at_masks(torch.special.entr(probs).sum(-1)).gather(-1, order)
            extra |= (entropy.cumsum(-1) - entropy.cummax(-1).values <= self.entropy_bound).gather(-1, rank)
        return masked & (rank < due[:, None]) | extra & in_block

    def _priority(self, probs: Float[Tensor, "n v"], masked: Mask, rng: Rng) -> Float[Tensor, " n"]:
        """The masks with the highest values are revealed first."""
        match self.order:
            case "random":
                return rng.uniform(masked.shape[1])[masked]
            case "left":
                return -masked.nonzero()[:, 1].float()
            case "confidence":
                return probs.amax(-1)
            case "margin":
                top = probs.topk(2).values
                return top[:, 0] - top[:, 1]
            case "entropy":
                return -torch.special.entr(probs).sum(-1)


def _beside(where: Mask) -> Mask:
    """The positions next to those of `where`."""
    padded = torch.nn.functional.pad(where, (1, 1))
    return padded[:, 2:] | padded[:, :-2]


def masks_after_step(step: int, num_start: Int[Tensor, " b"], num_steps: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """How many of `num_start` masks remain after step `step` (from 0) of `num_steps` (at least 1), which split them."""
    return num_start * (num_steps - 1 - step).clamp(min=0) // num_steps


def _first_of_segments(rank: Int[Tensor, "b l"], candidates: Mask, num_segments: Int[Tensor, " b"]) -> Mask:
    """The candidate of lowest rank in each of `num_segments` equal segments of the candidates (all if fewer)."""
    length, count = rank.shape[1], candidates.sum(-1, keepdim=True)
    number = (candidates.cumsum(-1) - 1) * torch.minimum(num_segments[:, None], count) // count.clamp(min=1)
    segment = torch.where(candidates, number, length)
    lowest = rank.new_full((len(rank), length + 1), length).scatter_reduce(-1, segment, rank, "amin")
    return candidates & (rank == lowest.gather(-1, segment))
