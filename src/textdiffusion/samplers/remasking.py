"""Samplers of masked models that take back what they have revealed: remasking and path planning."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.ratios import ReverseStep
from .ancestral import Ancestral, StepContext
from .base import Request
from .token_state import token_probs

Rule = Literal["cap", "rescale", "confidence", "loop"]


class ReMDM(Ancestral):
    """Ancestral steps in which a token is masked again with a chance sigma (ReMDM: Wang et al. 2025, eq. 6).

    As many more masks are revealed, so that at every t the share of masks is that of the process. Sigma is at most
    (1 - alpha(s)) / alpha(t), alpha being the share of tokens: `cap` takes no more than `eta`, `rescale` the share
    `eta` of it, and `confidence` that too in the mean, with more for tokens of which the model was less sure. `loop`
    caps while it holds alpha at `alpha`, as the steps left fall from the share `on` to `off`, and remasks at no other
    time.

    What is revealed together is drawn as if independent, which costs of the order of eta however many the steps are;
    but for that and `confidence`, which favours likely tokens, the law is the data's where the denoiser is ideal.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def __init__(
        self, rule: Rule = "cap", eta: float = 0.02, *, alpha: float = 0.9, on: float = 0.55, off: float = 0.05
    ) -> None:
        self.rule: Rule = rule
        self.eta, self.alpha, self.on, self.off = eta, alpha, on, off

    def times(self, model: DiffusionModel, request: Request) -> Float[Tensor, " n"]:
        """From 1 to 0, for `loop` with a halt where alpha is held."""
        times = super().times(model, request)
        if self.rule == "loop":
            held = float(model.process.schedule.time(torch.tensor(self.alpha)))
            left = np.linspace(1.0, 0.0, request.steps + 1)
            times = torch.from_numpy(np.interp(left, [0.0, self.off, self.on, 1.0], [0.0, held, held, 1.0])).to(times)
            times[-1] = 0.0  # with off = 0 too
        return times

    def step(self, turn: StepContext) -> Int[Tensor, "b l"]:
        """The state at s."""
        stream, process, rng = turn.stream, turn.stream.process, turn.rng
        x, masked = stream.x, process.is_noisy(stream.x)
        share_t, share_s = process.schedule.mask_prob(turn.t)[:, None], process.schedule.mask_prob(turn.s)[:, None]
        most = (share_s / (1.0 - share_t).clamp(min=1e-30)).clamp(max=1.0)
        sigma = self._sigma(most, stream.confidence, ~masked & stream.batch.target_mask, share_t == share_s)
        reveal = (share_t - share_s + sigma * (1.0 - share_t)) / share_t
        again = ~masked & (rng.fork("again").uniform(x.shape[1]) < sigma)
        jumps = ReverseStep(torch.where(masked, reveal, 0.0), turn.prediction.logits)
        return jumps.sample(x, rng=rng).masked_fill(again, process.mask)

    def _sigma(
        self,
        most: Float[Tensor, "b 1"],
        confidence: Float[Tensor, "b l"],
        shown: Bool[Tensor, "b l"],
        holding: Bool[Tensor, "b 1"],
    ) -> Float[Tensor, "b #l"]:
        """The chance of every place; that of a mask says how many more masks are revealed."""
        match self.rule:
            case "cap":
                return most.clamp(max=self.eta)
            case "rescale":
                return most * self.eta
            case "loop":
                return most.clamp(max=self.eta) * holding
            case "confidence":
                doubt = torch.exp(-confidence) * shown
                mean = doubt.sum(-1, keepdim=True) / shown.sum(-1, keepdim=True)
                return torch.where(shown, self.eta * doubt / mean, self.eta).clamp(max=1.0) * most


class PathPlanning(Ancestral):
    """Path planning (P2: Peng et al. 2025): every step proposes a text, keeps its surest places and masks the others.

    As many are kept as the process has tokens at s. A proposed token is as sure as the prediction says; one that was
    kept before as sure as it was when it was drawn, to the power `eta`: with 0 it stays, the larger eta is the more is
    written anew. Masked models predict nothing of tokens that they see, so these are not judged again. Choosing by the
    tokens drawn favours likely text: no law is kept.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = eta

    def step(self, turn: StepContext) -> Int[Tensor, "b l"]:
        """The state at s."""
        stream, process = turn.stream, turn.stream.process
        noised, masked = stream.batch.target_mask, stream.maskable
        token = turn.rng.categorical_at(masked, turn.prediction.logits[masked].softmax(-1))
        proposed = stream.x.masked_scatter(masked, token)
        sure = (stream.confidence**self.eta).masked_scatter(masked, token_probs(turn.laws, proposed, masked))
        rank = sure.masked_fill(~noised, -1.0).argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        kept = (process.schedule.alpha(turn.s) * noised.sum(-1)).round()
        return torch.where(rank < kept[:, None], proposed, process.mask)
