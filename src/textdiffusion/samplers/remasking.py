"""Samplers of masked models that mask revealed tokens again: ReMDM and path planning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.randomness import Rng
from ..core.registry import Part, check_bounds
from ..core.types import Times, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.ratios import ReverseStep
from .ancestral import Ancestral
from .base import Request
from .token_state import TokenState, token_probs

Column = Float[Tensor, "b 1"]
RemaskProbs = Float[Tensor, "b #l"]  # one per position, or one for all positions of a row


class RemaskingRule(Part, ABC):
    """The probability sigma of masking a revealed token again (ReMDM: Wang et al. 2025)."""

    def times(self, times: Float[Tensor, " n"], process: AbsorbingProcess) -> Float[Tensor, " n"]:
        """The times of the steps, from 1 to 0, given those of ancestral sampling."""
        return times

    @abstractmethod
    def sigma(self, eta: float, limit: Column, state: TokenState, is_plateau: Bool[Tensor, "b 1"]) -> RemaskProbs:
        """The probability at every position, at most `limit`; at a mask it adds to the probability of revealing.

        `is_plateau`: alpha(s) = alpha(t), so that the step only trades tokens for masks.
        """


@dataclass(frozen=True)
class Cap(RemaskingRule):
    """At most eta (ReMDM-cap)."""

    def sigma(self, eta: float, limit: Column, state: TokenState, is_plateau: Bool[Tensor, "b 1"]) -> RemaskProbs:
        return limit.clamp(max=eta)


@dataclass(frozen=True)
class Rescale(RemaskingRule):
    """The fraction eta of what is possible (ReMDM-rescale)."""

    def sigma(self, eta: float, limit: Column, state: TokenState, is_plateau: Bool[Tensor, "b 1"]) -> RemaskProbs:
        return limit * eta


@dataclass(frozen=True)
class Confidence(RemaskingRule):
    """The fraction eta of what is possible on average, and more for tokens of low confidence.

    As in ReMDM-conf, a token's probability is proportional to exp(-confidence) (Wang et al. 2025, section 4.1). There
    the probabilities of a row add up to the largest possible one; here eta times that is their mean.
    """

    def sigma(self, eta: float, limit: Column, state: TokenState, is_plateau: Bool[Tensor, "b 1"]) -> RemaskProbs:
        revealed = ~state.process.is_noisy(state.x) & state.batch.target_mask
        weight = torch.exp(-state.confidence) * revealed
        mean = weight.sum(-1, keepdim=True) / revealed.sum(-1, keepdim=True)
        return torch.where(revealed, eta * weight / mean, eta).clamp(max=1.0) * limit


@dataclass(frozen=True)
class Loop(RemaskingRule):
    """Remasks only while alpha is held constant (ReMDM-loop).

    The fraction of remaining steps falls from 1 to 0. Down to `t_on` and from `t_off` on, steps are ancestral; in
    between, the fraction of revealed tokens stays at `alpha`, and each token is masked again with probability at most
    eta.
    """

    alpha: float = 0.9
    t_on: float = 0.55
    t_off: float = 0.05

    def __post_init__(self) -> None:
        check_bounds(self, alpha=(0.01, 0.99), t_on=(0.0, 1.0), t_off=(0.0, self.t_on))

    def times(self, times: Float[Tensor, " n"], process: AbsorbingProcess) -> Float[Tensor, " n"]:
        plateau = float(process.schedule.time(torch.tensor(self.alpha)))
        remaining = np.linspace(1.0, 0.0, len(times))
        knots, values = [0.0, self.t_off, self.t_on, 1.0], [0.0, plateau, plateau, 1.0]
        times = torch.from_numpy(np.interp(remaining, knots, values)).to(times)
        times[-1] = 0.0  # also where t_off = 0
        return times

    def sigma(self, eta: float, limit: Column, state: TokenState, is_plateau: Bool[Tensor, "b 1"]) -> RemaskProbs:
        return limit.clamp(max=eta) * is_plateau


@dataclass(frozen=True, kw_only=True)
class ReMDM(Ancestral, name="remdm"):
    """Remasking diffusion: ancestral steps in which a revealed token is masked again (ReMDM).

    Wang et al. (2025), eq. 6. For masked models; with many steps it can correct tokens that ancestral sampling keeps
    forever. As many more masks are revealed in turn, so the fraction of masks at every t stays that of the process. The
    remasking probability sigma is at most (1 - alpha(s)) / alpha(t); `rule` (cap, rescale, confidence, loop) and `eta`
    choose it. An ideal denoiser samples the data distribution, up to an error of order eta from tokens that are drawn
    together; `confidence` favours likely tokens and does not.
    """

    processes = (AbsorbingProcess,)
    supports_t_start = False  # its rules have times of their own

    rule: RemaskingRule = Cap()
    eta: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, 1.0))

    def times(self, model: DiffusionModel, request: Request) -> Float[Tensor, " n"]:
        return self.rule.times(super().times(model, request), model.process)

    def step(self, state: TokenState, prediction: Prediction, t: Times, s: Times, *, rng: Rng) -> Tokens:
        process, x = state.process, state.x
        masked = process.is_noisy(x)
        mask_prob_t, mask_prob_s = process.schedule.mask_prob(t)[:, None], process.schedule.mask_prob(s)[:, None]
        limit = (mask_prob_s / (1.0 - mask_prob_t).clamp(min=1e-30)).clamp(max=1.0)
        sigma = self.rule.sigma(self.eta, limit, state, mask_prob_t == mask_prob_s)
        reveal_prob = (mask_prob_t - mask_prob_s + sigma * (1.0 - mask_prob_t)) / mask_prob_t
        remasked = ~masked & (rng.fork("again").uniform(x.shape[1]) < sigma)
        jumps = ReverseStep(torch.where(masked, reveal_prob, 0.0), prediction.logits)
        return jumps.sample(x, rng=rng).masked_fill(remasked, process.mask)


@dataclass(frozen=True, kw_only=True)
class PathPlanning(Ancestral, name="p2"):
    """Path planning: every step proposes a full text and keeps its most confident tokens (P2).

    Peng et al. (2025). For masked models, when likely text matters more than diversity: choosing by the sampled tokens
    favours likely text, so no number of steps samples the data distribution. As many tokens are kept as the process has
    revealed at s. The confidence of a new token is its probability; that of an earlier token is its probability when it
    was drawn, to the power `eta`: 0 keeps it for good, larger values replace more tokens. Masked models predict nothing
    at visible tokens, so these are not scored again.
    """

    processes = (AbsorbingProcess,)
    converges = False
    supports_t_start = False  # it keeps tokens by their confidence, which those of a draft lack

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, None))

    def step(self, state: TokenState, prediction: Prediction, t: Times, s: Times, *, rng: Rng) -> Tokens:
        process, target, masked = state.process, state.batch.target_mask, state.maskable
        assert state.logits is not None
        tokens = rng.categorical_at(masked, prediction.logits[masked].softmax(-1))
        proposal = state.x.masked_scatter(masked, tokens)
        confidence = (state.confidence**self.eta).masked_scatter(masked, token_probs(state.logits, proposal, masked))
        order = confidence.masked_fill(~target, -1.0).argsort(dim=-1, descending=True, stable=True)
        num_revealed = (process.schedule.alpha(s) * target.sum(-1)).round()
        return torch.where(order.argsort(dim=-1) < num_revealed[:, None], proposal, process.mask)
