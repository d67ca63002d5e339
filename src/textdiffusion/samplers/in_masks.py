"""A model whose noise are vectors or tokens, seen as one of masks, so that every sampler of masks can write with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..batch import Batch
from ..codecs.tokens import TokenCodec
from ..guides.infill import GivenTokens
from ..model import Model
from ..prediction import Prediction
from ..processes.absorbing import AbsorbingProcess
from ..processes.densities import UniformDensity
from ..processes.schedules import LogLinear
from ..randomness import Rng
from .step import Sampler


class NothingButNoise(nn.Module):
    """A denoiser of masks made of one whose training gave it tokens: masks are places of pure noise, all else is given.

    A place at t = 1 says nothing of its token, as a mask does; so where the denoiser is ideal this one is too. It is
    good where the noise density reaches pure noise often and conditioning masks give tokens anywhere. A row's noise is
    the same in every call.
    """

    time_free, self_conditioning = True, False

    def __init__(self, model: Model, mask: int, seed: int) -> None:
        super().__init__()
        self.codec, self.process, self.denoiser = model.codec, model.process, model.denoiser
        self.mask, self.seed = mask, seed

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the tokens behind the masks."""
        masked = xt == self.mask
        known = ~masked if batch.real is None else ~masked & batch.real
        ids = xt.masked_fill(masked, 0)
        clean = self.codec.encode(ids)
        rows = torch.arange(len(ids), device=ids.device) if batch.rows is None else batch.rows
        noise = self.process.prior(clean, rng=Rng.of(self.seed, rows).fork("nothing but noise"))
        state = torch.where(known if clean.ndim == 2 else known[..., None], clean, noise)
        return self.denoiser(state, torch.ones_like(t), batch=replace(batch, ids=ids, given=known))


class InMasks(Model):
    """A model with the parts that samplers of masks ask for, around the denoiser of another."""

    def __init__(self, model: Model, seed: int) -> None:
        nn.Module.__init__(self)
        vocab = model.codec.vocab
        self.config, self.codec, self.density = model.config, TokenCodec(vocab), UniformDensity()
        self.process = AbsorbingProcess(vocab, LogLinear(0.0))
        self.denoiser = NothingButNoise(model, self.process.mask, seed)
        self.register_buffer("tuned", None, persistent=False)


def driven_by(sampler: Sampler, model: Model, seed: int = 0) -> Model | None:
    """The model as `sampler` can drive it: as it is, in masks if its training gave tokens, or not at all (None)."""
    if isinstance(model.process, sampler.processes):
        return model
    given = isinstance(model.process, GivenTokens.processes) and model.config.text.mask != "none"
    return InMasks(model, seed) if given and issubclass(AbsorbingProcess, sampler.processes) else None
