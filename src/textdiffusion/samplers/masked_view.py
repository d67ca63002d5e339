"""A Gaussian model seen as a masked model, so that every sampler of masked models works with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.types import AnyTimes, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.alpha_schedules import Linear
from ..diffusion.codecs import TokenCodec
from ..diffusion.densities import UniformDensity
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from .base import Sampler


class MaskedViewDenoiser(nn.Module):
    """A denoiser of masks: masks are positions of pure noise, all other tokens are conditioning tokens.

    A position at t = 1 carries no information about its token, as a mask does, so an ideal denoiser stays ideal. In
    practice training must see pure noise often and conditioning tokens at any position. The noise of a row with a
    number is the same in every call, so that all its tokens are drawn from one distribution.
    """

    time_independent, self_conditioning = True, False

    def __init__(self, model: DiffusionModel, mask: int, seed: int) -> None:
        super().__init__()
        self.codec, self.process, self.denoiser = model.codec, model.process, model.denoiser
        self.mask, self.seed = mask, seed

    def forward(self, xt: Tokens, t: AnyTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        visible = xt != self.mask if batch.valid_mask is None else (xt != self.mask) & batch.valid_mask
        tokens = torch.where(visible, xt, 0)
        clean = self.codec.encode(tokens)
        rows = torch.arange(len(tokens), device=tokens.device) if batch.row_ids is None else batch.row_ids
        noise = self.process.sample_prior(clean, rng=Rng.of(self.seed, rows).fork("masks as noise"))
        state = torch.where(visible[..., None], clean, noise)
        batch = replace(batch, tokens=tokens, condition_mask=visible)
        return Prediction(self.denoiser(state, torch.ones_like(t), batch=batch).logits)


class MaskedView(DiffusionModel):
    """A masked diffusion model around the denoiser of a Gaussian model, for sampling only."""

    def __init__(self, model: DiffusionModel, seed: int) -> None:
        nn.Module.__init__(self)
        vocab_size = model.codec.vocab_size
        self.inner, self.window_length = model, model.window_length
        self.codec, self.time_density = TokenCodec(vocab_size), UniformDensity()
        self.process = AbsorbingProcess(vocab_size, Linear())
        self.denoiser = MaskedViewDenoiser(model, self.process.mask, seed)
        self.register_buffer("tuned", None, persistent=False)

    @property
    def unadapted(self) -> DiffusionModel:
        return self.inner


def adapt_model(sampler: Sampler, model: DiffusionModel, seed: int) -> DiffusionModel:
    """The model in the form that the sampler supports: itself, or its `MaskedView`, whose noise depends on `seed`.

    Only for pairs that `config.compatibility.sampler_problem` accepts.
    """
    return model if isinstance(model.process, sampler.processes) else MaskedView(model, seed)
