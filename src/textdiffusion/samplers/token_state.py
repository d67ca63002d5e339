"""The way from noise to text that all samplers of token ids share."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import Denoiser, Model
from .base import Request, Step, Stream


class TokenStream(Stream):
    """Rows of token ids on their way: their state `x`, and the `confidence` of what they show.

    `inside` is the process that moves them where it is not the model's.
    """

    def __init__(
        self,
        model: Model,
        request: Request,
        *,
        rng: Rng,
        denoiser: Denoiser | None = None,
        inside: AbsorbingProcess | None = None,
    ) -> None:
        super().__init__(model, request, denoiser)
        self.process = model.process if inside is None else inside
        self.x: Int[Tensor, "b l"] = self.kept(self.process.prior(self.batch.ids, rng=rng.fork("prior")))
        self.confidence = self.batch.noised.logical_not().float()  # nothing has been predicted yet

    def kept(self, x: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """`x` with the tokens that are given."""
        return torch.where(self.batch.noised, x, self.batch.ids)

    @property
    def open(self) -> Bool[Tensor, "b l"]:
        """The positions that a step may change."""
        return self.process.changing(self.x) & self.batch.noised

    def step(self, index: int, t: float) -> Step:
        """What there is to see after the step `index`."""
        return Step(index, self.steps, t, self.x, self.confidence, self.x, self.calls)

    def move(
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
        was, xs = self.open, self.kept(self.steered(xs, s, rng))
        shown = (was & (xs < self.process.vocab))[rows]
        confidence = torch.where(xs == self.x, self.confidence, 0.0)
        confidence[rows] = confidence[rows].masked_scatter(shown, token_probs(logits, xs[rows], shown))
        self.x, self.confidence = xs, confidence


def token_probs(
    logits: Float[Tensor, "b l v"], ids: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]
) -> Float[Tensor, " n"]:
    """The probability of `ids` at the `n` positions `where`."""
    return logits[where].softmax(-1).gather(-1, ids[where][:, None])[:, 0]
