"""Tools of the tests that know their language completely: the ideal models, a wrong one, codecs and predictions."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from textdiffusion.core.batch import Batch
from textdiffusion.diffusion.densities import UniformDensity
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.table_codecs import EmbeddingCodec, SimplexCodec, TableCodec, bits
from textdiffusion.evaluation.ideal_denoisers import (  # noqa: F401 (for the tests)
    ChainDenoiser,
    IdealBlocks,
    IdealDenoiser,
    ideal_autoregressive,
    ideal_blocks,
    ideal_gaussian,
    ideal_masked,
    ideal_models,
    ideal_uniform,
)
from textdiffusion.evaluation.known_language import KnownLanguage


class Language(KnownLanguage):
    """A known language under the short names of the tests."""

    @property
    def ids(self) -> Tensor:
        return self.texts

    @property
    def law(self) -> Tensor:
        return self.probs


class WrongDenoiser(nn.Module):
    """An arbitrary function of everything a denoiser may see: a fixed random network of no merit."""

    def __init__(self, language: Language, table: Tensor | None = None, causal: bool = False) -> None:
        super().__init__()
        self.language, self.table, self.causal, self.time_independent = language, table, causal, False
        self.self_conditioning = table is not None
        draw = torch.Generator().manual_seed(7)
        width = language.vocab_size + 1 if table is None else table.shape[1]
        n = language.length
        self.first = torch.randn(n * 2 * width, 16, generator=draw)
        self.second = torch.randn(16, n * language.vocab_size, generator=draw) * 0.7

    def forward(self, xt: Tensor, t: Tensor, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        seen = nn.functional.one_hot(xt, self.language.vocab_size + 1).float() if self.table is None else xt
        estimate = torch.zeros_like(seen) if self_cond is None else self_cond
        if batch.valid_mask is not None:
            seen = seen * batch.valid_mask[..., None]
        if not self.causal:
            return Prediction(self._logits(seen, estimate, t), self.table)
        # The logits of a position come from a pass that sees only what is before it.
        columns = []
        for i in range(self.language.length):
            before = (torch.arange(self.language.length) < i)[None, :, None]
            columns.append(self._logits(seen * before, estimate * before, t)[:, i])
        return Prediction(torch.stack(columns, dim=1), self.table)

    def _logits(self, seen: Tensor, estimate: Tensor, t: Tensor) -> Tensor:
        features = torch.cat((seen, estimate), dim=-1).flatten(1)
        hidden = torch.tanh(features @ self.first / 2 + t[:, None])
        return (hidden @ self.second).view(len(seen), self.language.length, self.language.vocab_size)


def assemble(codec, process, denoiser, density=None, window_length=0) -> DiffusionModel:
    """A model of parts that no recipe puts together, as if trained on windows of `window_length`."""
    model = DiffusionModel.__new__(DiffusionModel)
    nn.Module.__init__(model)
    model.codec, model.process, model.denoiser = codec, process, denoiser
    model.time_density = UniformDensity() if density is None else density
    model.register_buffer("tuned", None, persistent=False)
    model.register_buffer("step", torch.zeros((), dtype=torch.long))
    model.window_length = window_length
    return model.eval()


def tables(vocab_size: int) -> dict[str, TableCodec]:
    """The continuous codecs, by name."""
    return {
        "bits": TableCodec(bits(vocab_size)),
        "simplex": SimplexCodec(vocab_size),
        "embeddings": EmbeddingCodec(
            torch.randn(vocab_size, 8, generator=torch.Generator().manual_seed(3)) * 1e-3, normalise="l2"
        ),
        "layer-normed": EmbeddingCodec(
            torch.randn(vocab_size, 8, generator=torch.Generator().manual_seed(4)) * 1e-3, normalise="layer"
        ),
    }


def point(ids: Tensor, vocab_size: int) -> Prediction:
    """A prediction that is certain."""
    return Prediction(torch.where(nn.functional.one_hot(ids, vocab_size).bool(), 0.0, -torch.inf))


def last(steps):
    """The result of a sampler."""
    return deque(steps, maxlen=1).pop()
