"""Guides against repetition: tokens that are already in the text become less likely, or may not repeat a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.batch import Batch
from ..core.registry import check_bounds
from ..core.types import Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction
from ..samplers.base import Guide, LogitsGuide, Request, Run, WrappedDenoiser
from .base import GuideConfig

PROCESSES = (AbsorbingProcess, AutoregressiveProcess)
"""Those that reveal tokens: others have a token, or a vector, at every position from the start."""


@dataclass(frozen=True)
class NoRepeat(GuideConfig, LogitsGuide):
    """Forbids tokens that would repeat a sequence of `ngram` tokens that the text has, for samplers that reveal tokens.

    Tokens that are revealed in the same step do not see each other; more steps leave fewer of them.
    """

    processes = PROCESSES

    ngram: int = 4

    def __post_init__(self) -> None:
        check_bounds(self, ngram=(2, None))

    def bind(self, run: Run) -> Guide:
        return self

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return WrappedDenoiser(denoiser, self._forbid)

    def _forbid(self, prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        logits = prediction.logits
        remaining = logits.masked_fill(repeating_tokens(xt, self.ngram, logits.shape[-1]), -torch.inf)
        has_choice = (remaining > -torch.inf).any(-1, keepdim=True)
        return prediction.with_logits(torch.where(has_choice, remaining, logits))


def repeating_tokens(xt: Tokens, n: int, vocab_size: int) -> Bool[Tensor, "b l v"]:
    """The tokens that would complete, at a position not yet revealed, a sequence of n tokens that the row has."""
    repeating = torch.zeros(*xt.shape, vocab_size, dtype=torch.bool, device=xt.device)
    if xt.shape[1] < n:
        return repeating
    windows, revealed = xt.unfold(1, n, 1), (xt < vocab_size).unfold(1, n, 1)
    is_complete, token_ids = revealed.all(-1), torch.arange(vocab_size, device=xt.device)
    for j in range(n):  # the missing token of a window
        others = [k for k in range(n) if k != j]
        same = ~revealed[:, :, None, j] & is_complete[:, None]
        for k in others:
            same &= revealed[:, :, None, k]
            same &= windows[:, :, None, k] == windows[:, None, :, k]
        has_token = windows[..., j, None] == token_ids
        repeating[:, j : j + windows.shape[1]] |= same.float() @ has_token.float() > 0
    return repeating


@dataclass(frozen=True)
class RepetitionPenalty(GuideConfig, LogitsGuide):
    """Makes tokens that the text already has less likely: p^penalty, renormalised, for samplers that reveal tokens.

    The penalty of CTRL (Keskar et al. 2019, section 4.1) on log probabilities. For vocabularies of words or pieces:
    every character of an alphabet is soon in the text.
    """

    processes = PROCESSES

    penalty: float = 1.2

    def __post_init__(self) -> None:
        check_bounds(self, penalty=(1.0, 100.0))

    def bind(self, run: Run) -> Guide:
        return self

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return denoiser if self.penalty == 1.0 else WrappedDenoiser(denoiser, self._penalise)

    def _penalise(self, prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        log_probs = prediction.logits.log_softmax(-1)
        vocab_size = log_probs.shape[-1]
        present = torch.zeros(len(xt), vocab_size + 1, dtype=torch.bool, device=xt.device)
        present = present.scatter(1, xt.clamp(max=vocab_size), True)[:, None, :vocab_size]
        return prediction.with_logits(torch.where(present, log_probs * self.penalty, log_probs))
