"""The way from noise to text that all samplers of token ids share."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import Denoiser, DiffusionModel
from .base import Request, SamplingState, Step


class TokenState(SamplingState):
    """Rows of token ids on their way: their state `x`, and the `confidence` of what they show.

    `inside` is the process that moves them where it is not the model's.
    """

    def __init__(
        self,
        model: DiffusionModel,
        request: Request,
        *,
        rng: Rng,
        denoiser: Denoiser | None = None,
        inside: AbsorbingProcess | None = None,
    ) -> None:
        super().__init__(model, request, denoiser)
        self.process = model.process if inside is None else inside
        self.x: Int[Tensor, "b l"] = self.apply_condition(
            self.process.sample_prior(self.batch.tokens, rng=rng.fork("prior"))
        )
        self.confidence = self.batch.target_mask.logical_not().float()  # nothing has been predicted yet

    def apply_condition(self, x: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """`x` with the tokens that are given."""
        return torch.where(self.batch.target_mask, x, self.batch.tokens)

    @property
    def maskable(self) -> Bool[Tensor, "b l"]:
        """The positions that a step may change."""
        return self.process.is_noisy(self.x) & self.batch.target_mask

    def step(self, index: int, t: float) -> Step:
        """What there is to see after the step `index`."""
        return Step(index, self.steps, t, self.x, self.confidence, self.x, self.nfe)

    def update(
        self,
        xs: Int[Tensor, "b l"],
        s: Float[Tensor, " b"],
        logits: Float[Tensor, "n l v"],
        rng: Rng,
        rows: Int[Tensor, " n"] | slice = slice(None),
    ) -> None:
        """Goes to `xs` at s, and to where guides lead from there. `logits` are what was said of `rows`.

        Confidence is taken from these laws of single positions, also where tokens were drawn together.
        """
        was, xs = self.maskable, self.apply_condition(self.apply_guides(xs, s, rng))
        shown = (was & (xs < self.process.vocab_size))[rows]
        confidence = torch.where(xs == self.x, self.confidence, 0.0)
        confidence[rows] = confidence[rows].masked_scatter(shown, token_probs(logits, xs[rows], shown))
        self.x, self.confidence = xs, confidence


def token_probs(
    logits: Float[Tensor, "b l v"], ids: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]
) -> Float[Tensor, " n"]:
    """The probability of `ids` at the `n` positions `where`."""
    return logits[where].softmax(-1).gather(-1, ids[where][:, None])[:, 0]
