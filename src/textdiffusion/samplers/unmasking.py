"""Masked models by rules of order: which masks are revealed next, and how many at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from .base import Request, Step
from .token_state import TokenState

Order = Literal["random", "confidence", "margin", "entropy", "left"]


class Unmasking:
    """Reveals masks in an order: at random, from left to right, or first where the prediction is surest.

    The prediction chooses the places and the tokens are drawn from it afterwards. So with one place a step every order
    draws from the law of the model, which is the data's where the denoiser is ideal; a choice by the tokens drawn would
    favour the likely ones. Places revealed together are drawn as if they were independent, so they are `spread`: the
    masks of a row (or its block) are cut into as many stretches as places are due, and the first of each is taken. Else
    the surest places are neighbours, which depend on each other most (LLaDA takes them so).

    The free places of each row are shared out evenly over the steps. With more steps than places each takes one, and a
    row is done before others with more places. Beyond that a step takes every place whose likeliest token has more
    than `threshold`, and as many places in order as keep the sum of their entropies less the largest of them
    within `bound` nats, which bounds what drawing them together costs (EB-Sampler: Ben-Hamu et al. 2025); then it takes
    at least one. Rows that have nothing to reveal in a step, or no more, cost nothing. With
    `block` the masks of a block come before those of the next (LLaDA). Once no more than the share `greedy` of a row is
    masked its tokens are the likeliest ones, which is no draw from the law.

    When all is revealed, `rounds` follow that mask places anew, the share `again` of them in the first round and evenly
    less in each later one, and reveal them in the same way: noise and back, which keeps the law of an ideal denoiser
    and repairs what a trained one sees only in nearly finished text. The steps are shared out by the masks.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def __init__(
        self,
        order: Order = "random",
        *,
        threshold: float = 1.0,
        bound: float = 0.0,
        block: int = 0,
        greedy: float = 0.0,
        rounds: int = 0,
        again: float = 0.7,
        spread: bool = True,
    ) -> None:
        self.order: Order = order
        self.spaced = spread and order != "left"
        self.threshold, self.entropy_bound, self.block_size, self.greedy_below = threshold, bound, block, greedy
        self.shares = [1.0] + [again * (1.0 - i / rounds) for i in range(rounds)]  # what each pass masks, at its start

    def __call__(self, model: DiffusionModel, request: Request, *, rng: Rng) -> Iterator[Step]:
        """Steps from all masks to text. The `t` of a step is the share of the free places that are masked."""
        stream, process, batch = TokenState(model, request, rng=rng), model.process, request.batch
        free = batch.target_mask.sum(-1).clamp(min=1)
        yield stream.step(0, 1.0)
        for share, first, last in self._passes(request.steps):
            again = rng.fork("again").fork(first).random_subset(batch.target_mask, (free * share).round()[:, None])
            stream.x = stream.x.masked_fill(again, process.mask)
            stream.confidence = stream.confidence.masked_fill(again, 0.0)
            begun = stream.maskable.sum(-1)
            taken = begun.clamp(min=1, max=last - first)  # steps that the row takes
            for i in range(first, last):
                masked, draws = stream.maskable, rng.fork(i)
                left = masked.sum(-1)
                due = left - begun * (first + taken - 1 - i).clamp(min=0) // taken
                if self.threshold < 1.0 or self.entropy_bound > 0.0:
                    due = torch.minimum(due.clamp(min=1), left)
                rows = (due > 0).nonzero()[:, 0]
                if len(rows):
                    hidden, few = left[rows] / free[rows], draws.select(rows)
                    t = process.schedule.time(1.0 - hidden)
                    said = stream.denoiser(stream.x[rows], t, batch=batch.select(rows))
                    probs = said.logits[masked[rows]].softmax(-1)
                    chosen = self._chosen(probs, masked[rows], due[rows], rng=few.fork("order"))
                    law = said.sample_joint(few.fork("whole")).logits[chosen].softmax(-1)
                    token = few.fork("token").categorical_at(chosen, law)
                    greedy = (hidden <= self.greedy_below)[:, None].expand_as(chosen)[chosen]
                    token = torch.where(greedy, law.argmax(-1), token)
                    revealed = torch.zeros_like(masked)
                    revealed[rows] = chosen
                    s = process.schedule.time(1.0 - (left - revealed.sum(-1)) / free)
                    stream.update(stream.x.masked_scatter(revealed, token), s, said.logits, draws, rows)
                yield stream.step(i + 1, float((stream.maskable.sum(-1) / free).mean()))

    def _passes(self, steps: int) -> list[tuple[float, int, int]]:
        """The share of places masked at the start of each pass, with the pass's first step and that of the next.

        Passes for which there are no steps are left out.
        """
        ends = [math.ceil(steps * part / sum(self.shares) - 1e-9) for part in accumulate(self.shares)]
        passes = zip(self.shares, [0, *ends[:-1]], ends, strict=True)
        return [(share, first, last) for share, first, last in passes if first < last]

    def _chosen(
        self, probs: Float[Tensor, "n v"], masked: Bool[Tensor, "b l"], due: Int[Tensor, " b"], *, rng: Rng
    ) -> Bool[Tensor, "b l"]:
        """Which masks to reveal, given the predictions at the `n` there are: at least `due` in each row."""

        def placed(values: Float[Tensor, " n"]) -> Float[Tensor, "b l"]:
            return values.new_zeros(masked.shape).masked_scatter(masked, values)

        place = torch.arange(masked.shape[1], device=masked.device).expand(masked.shape)
        block = torch.where(masked, place // (self.block_size or masked.shape[1]), masked.shape[1])
        inside = masked & (block == block.amin(-1, keepdim=True))
        turns = placed(self._sureness(probs, masked, rng)).argsort(dim=-1, descending=True, stable=True)
        if self.spaced:
            others = ~_first_of_stretches(turns.argsort(-1), inside, due)
            turns = turns.gather(-1, others.gather(-1, turns).byte().argsort(dim=-1, stable=True))
        turns = turns.gather(-1, block.gather(-1, turns).argsort(dim=-1, stable=True))  # block after block
        rank = turns.argsort(-1)
        more = torch.zeros_like(masked)
        if self.threshold < 1.0:
            more = placed(probs.amax(-1)) > self.threshold
        if self.entropy_bound > 0.0:
            entropy = placed(torch.special.entr(probs).sum(-1)).gather(-1, turns)
            more |= (entropy.cumsum(-1) - entropy.cummax(-1).values <= self.entropy_bound).gather(-1, rank)
        return masked & (rank < due[:, None]) | more & inside

    def _sureness(self, probs: Float[Tensor, "n v"], masked: Bool[Tensor, "b l"], rng: Rng) -> Float[Tensor, " n"]:
        """What is revealed first has the most."""
        match self.order:
            case "random":
                return rng.uniform(masked.shape[1])[masked]
            case "left":
                return -masked.nonzero()[:, 1].float()
            case "confidence":
                return probs.amax(-1)
            case "margin":
                best = probs.topk(2).values
                return best[:, 0] - best[:, 1]
            case "entropy":
                return -torch.special.entr(probs).sum(-1)


def _first_of_stretches(
    rank: Int[Tensor, "b l"], inside: Bool[Tensor, "b l"], due: Int[Tensor, " b"]
) -> Bool[Tensor, "b l"]:
    """Of the places `inside`, cut into `due` stretches of equal length, the first of each in `rank`; all if fewer."""
    length, count = rank.shape[1], inside.sum(-1, keepdim=True)
    number = (inside.cumsum(-1) - 1) * torch.minimum(due[:, None], count) // count.clamp(min=1)
    stretch = torch.where(inside, number, length)
    best = rank.new_full((len(rank), length + 1), length).scatter_reduce(-1, stretch, rank, "amin")
    return inside & (rank == best.gather(-1, stretch))
