"""Text that has ended: what follows its end token is padding, which needs no prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.types import Times
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import Denoiser
from ..samplers.base import Guide, Request, Run
from .base import GuideConfig


@dataclass(frozen=True)
class StopAtEnd(GuideConfig):
    """Fills the masks after an end token with padding at once, so that rows whose text has ended need fewer calls.

    For runs that learned where texts end. Exact for an ideal model, which predicts only padding there.
    """

    def bind(self, run: Run) -> Guide:
        """Raises UserError for a run that did not learn padding."""
        end, pad = run.tokenizer.end_id, run.tokenizer.pad_id
        if not run.config.text.model_padding or end is None or pad is None:
            raise UserError("stop_at_end needs a run that learned where texts end (text.model_padding=true).")
        return PaddingAfterEnd(end, pad, mask=run.tokenizer.vocab_size)


@dataclass(frozen=True)
class PaddingAfterEnd:
    """Replaces masks behind the first end token of the positions to write by padding."""

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    end: int
    pad: int
    mask: int

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return denoiser

    def after_step(self, xs: Tensor, s: Times, *, batch: Batch, rng: Rng) -> Tensor:
        ended = (((xs == self.end) | (xs == self.pad)) & batch.target_mask).cumsum(-1) > 0
        return torch.where(ended & batch.target_mask & (xs == self.mask), self.pad, xs)
