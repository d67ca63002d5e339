"""A model of noisy vectors, seen as one of masks, so that every sampler of masks can write with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.alpha_schedules import Linear
from ..diffusion.codecs import TokenCodec
from ..diffusion.densities import UniformDensity
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from .base import Sampler


class MaskedViewDenoiser(nn.Module):
    """A denoiser of masks made of one whose training gave it tokens: masks are places of pure noise, all else is given.

    A place at t = 1 says nothing of its token, as a mask does; so where the denoiser is ideal this one is too. It is
    good where the noise density reaches pure noise often and conditioning masks give tokens anywhere. The noise of a
    numbered row is the same in every call, so the law that all its tokens are drawn from is one and the same.
    """

    time_independent, self_conditioning = True, False

    def __init__(self, model: DiffusionModel, mask: int, seed: int) -> None:
        super().__init__()
        self.codec, self.process, self.denoiser = model.codec, model.process, model.denoiser
        self.mask, self.seed = mask, seed

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the tokens behind the masks."""
        known = xt != self.mask if batch.valid_mask is None else (xt != self.mask) & batch.valid_mask
        ids = torch.where(known, xt, 0)
        clean = self.codec.encode(ids)
        rows = torch.arange(len(ids), device=ids.device) if batch.row_ids is None else batch.row_ids
        noise = self.process.sample_prior(clean, rng=Rng.of(self.seed, rows).fork("masks as noise"))
        state = torch.where(known[..., None], clean, noise)
        return Prediction(
            self.denoiser(state, torch.ones_like(t), batch=replace(batch, tokens=ids, condition_mask=known)).logits
        )


class MaskedView(DiffusionModel):
    """A model with the parts that samplers of masks ask for, around the denoiser of another."""

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
    """The model as the sampler can drive it, where `config.compatibility.sampler_problem` finds nothing; `seed` is that of the noise at masks."""
    return model if isinstance(model.process, sampler.processes) else MaskedView(model, seed)
