"""The state of a sampling run over token ids."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.randomness import Rng
from ..core.types import Logits, Mask, Times, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import Denoiser, DiffusionModel
from .base import Request, SamplingState, Step

Rows = Int[Tensor, " n"] | slice


class TokenState(SamplingState):
    """Rows of token ids `x` while they are sampled, with the `confidence` of each revealed token.

    `process` replaces the model's process, for example inside one block. `logits` are the latest predictions of single
    positions; samplers that step every row set it.
    """

    def __init__(
        self,
        model: DiffusionModel,
        request: Request,
        *,
        rng: Rng,
        denoiser: Denoiser | None = None,
        process: AbsorbingProcess | None = None,
    ) -> None:
        super().__init__(model, request, denoiser)
        self.process = model.process if process is None else process
        tokens, noise_rng = self.batch.tokens, rng.fork("prior")
        if self.t_start < 1.0:
            t = torch.full((len(tokens),), self.t_start, device=tokens.device)
            noisy = self.process.add_noise(tokens, t, rng=noise_rng)
        else:
            noisy = self.process.sample_prior(tokens, rng=noise_rng)
        self.x: Tokens = self.apply_condition(noisy)
        self.confidence = self.batch.target_mask.logical_not().float()  # nothing has been predicted yet
        self.logits: Logits | None = None

    def apply_condition(self, x: Tokens) -> Tokens:
        """`x` with the conditioning tokens put in."""
        return torch.where(self.batch.target_mask, x, self.batch.tokens)

    @property
    def maskable(self) -> Mask:
        """The positions that a step may change."""
        return self.process.is_noisy(self.x) & self.batch.target_mask

    def as_step(self, index: int, t: float) -> Step:
        """The current state as the step `index`."""
        return Step(index, self.steps, t, self.x, self.confidence, self.x, self.nfe)

    def update(self, xs: Tokens, s: Times, logits: Float[Tensor, "n l v"], rng: Rng, rows: Rows = slice(None)) -> None:
        """Moves to `xs` at time s, applies the guides, and updates the confidence of the `rows` predicted by `logits`.

        Confidence comes from these logits of single positions, even if the tokens were sampled jointly.
        """
        could_change, xs = self.maskable, self.apply_condition(self.apply_guides(xs, s, rng))
        predicted = (could_change & (xs < self.process.vocab_size))[rows]
        confidence = torch.where(xs == self.x, self.confidence, 0.0)
        confidence[rows] = confidence[rows].masked_scatter(predicted, token_probs(logits, xs[rows], predicted))
        self.x, self.confidence = xs, confidence


def token_probs(logits: Logits, tokens: Tokens, mask: Mask) -> Float[Tensor, " n"]:
    """The probabilities of `tokens` at the `n` positions of `mask`."""
    return logits[mask].softmax(-1).gather(-1, tokens[mask][:, None])[:, 0]
