"""A language small enough to be known completely: a law p(x) given as a table, and denoisers in closed form."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from textdiffusion.core.batch import Batch
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.autoregressive import AutoregressiveProcess
from textdiffusion.diffusion.blocks import BlockProcess
from textdiffusion.diffusion.codecs import EmbeddingCodec, SimplexCodec, TableCodec, TokenCodec, bits
from textdiffusion.diffusion.densities import UniformDensity
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.diffusion.uniform import UniformProcess


@dataclass(frozen=True)
class Language:
    """All sequences of `length` tokens out of `vocab`, `ids` [n, l], and their probabilities `law` [n]."""

    vocab_size: int
    length: int
    ids: Tensor
    law: Tensor

    @classmethod
    def random(cls, vocab_size: int, length: int, seed: int = 0) -> Language:
        """A correlated law with a rare token and a share of impossible sequences."""
        ids = torch.tensor(list(product(range(vocab_size), repeat=length)))
        draw = torch.Generator().manual_seed(seed)
        law = torch.empty(len(ids)).exponential_(generator=draw) ** 2 * (torch.rand(len(ids), generator=draw) > 0.2)
        return cls(vocab_size, length, ids, law / law.sum())

    @property
    def entropy(self) -> float:
        """Nats per sequence."""
        return float(torch.special.entr(self.law.double()).sum())

    def number(self, ids: Tensor) -> Tensor:
        """The row of `self.ids` of every sequence."""
        return (ids * self.vocab_size ** torch.arange(self.length - 1, -1, -1)).sum(-1)

    def nll(self, known: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """-log p(the seen tokens | the known ones) of every sequence, in nats [n]; masks over positions [l]."""
        known = torch.zeros(self.length, dtype=torch.bool) if known is None else known
        seen = torch.ones(self.length, dtype=torch.bool) if seen is None else seen
        return torch.log(self._marginal(known)) - torch.log(self._marginal(known | seen))

    def _marginal(self, where: Tensor) -> Tensor:
        same = ((self.ids[:, None] == self.ids[None]) | ~where).all(-1)
        return same.double() @ self.law.double()

    def distance(self, ids: Tensor) -> float:
        """Total variation between the sequences drawn and the law."""
        counts = torch.bincount(self.number(ids), minlength=len(self.law))
        return float((counts / len(ids) - self.law).abs().sum() / 2)

    def floor(self, draws: int) -> float:
        """The total variation expected of `draws` exact draws."""
        return float(torch.sqrt(self.law * (1 - self.law) / draws).sum() * (2 / torch.pi) ** 0.5 / 2)


class IdealDenoiser(nn.Module):
    """p(x0_i | x_t, given tokens) by enumeration: Bayes' rule over all sequences, marginal at every position."""

    def __init__(self, language: Language, process, table: Tensor | None = None, time_free: bool = False) -> None:
        super().__init__()
        self.language, self.process, self.table = language, process, table
        self.time_independent, self.self_conditioning = time_free, table is not None

    def evidence(self, xt: Tensor, t: Tensor) -> Tensor:
        """log q(x_t | x_0 = token) at every position, for every token [b, l, v]."""
        rows = []
        for token in range(self.language.vocab_size):
            clean = torch.full(xt.shape[:2], token) if self.table is None else self.table[token].expand_as(xt)
            rows.append(self.process.log_likelihood(xt, clean, t))
        return torch.stack(rows, dim=-1)

    def joint(self, xt: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """The posterior over whole sequences [b, n]."""
        likely = self.evidence(xt, t)
        if batch.condition_mask is not None:
            known = torch.where(nn.functional.one_hot(batch.tokens, self.language.vocab_size).bool(), 0.0, -torch.inf)
            likely = torch.where(batch.condition_mask[..., None], known, likely)
        if batch.valid_mask is not None:
            likely = torch.where(batch.valid_mask[..., None], likely, 0.0)
        at = self.language.ids.T[None].expand(len(xt), -1, -1)
        return (likely.gather(-1, at).sum(1) + torch.log(self.language.law)).double().softmax(-1)

    def forward(self, xt: Tensor, t: Tensor, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        onehot = nn.functional.one_hot(self.language.ids, self.language.vocab_size).double()
        probs = torch.einsum("bn,nlv->blv", self.joint(xt, t, batch), onehot)
        return Prediction(torch.log(probs).float(), self.table)


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


class ChainDenoiser(nn.Module):
    """p(x_i | x_<i) by enumeration: the ideal left-to-right denoiser."""

    def __init__(self, language: Language) -> None:
        super().__init__()
        self.language, self.time_independent, self.table, self.self_conditioning = language, True, None, False

    def forward(self, xt: Tensor, t: Tensor, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        n = self.language.length
        columns = []
        for i in range(xt.shape[1]):
            before = torch.arange(n) < i
            padded = nn.functional.pad(xt, (0, n - xt.shape[1]))
            same = ((padded[:, None] == self.language.ids[None]) | ~before).all(-1).float() * self.language.law
            onehot = nn.functional.one_hot(self.language.ids[:, i], self.language.vocab_size).float()
            columns.append(same @ onehot / same.sum(-1, keepdim=True))
        return Prediction(torch.log(torch.stack(columns, dim=1)))


@dataclass
class IdealBlockCache:
    """Finished blocks, as the ideal denoiser of blocks keeps them: by their tokens."""

    denoiser: IdealBlocks
    tokens: Tensor
    time_independent, self_conditioning = True, False

    def __call__(self, xt, t, *, batch, self_cond=None) -> Prediction:
        visible = torch.cat((self.tokens[batch.row_ids], xt), dim=1)
        return Prediction(self.denoiser.logits(visible)[:, self.length : visible.shape[1]])

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def append(self, block: Batch) -> IdealBlockCache:
        return IdealBlockCache(self.denoiser, torch.cat((self.tokens, block.tokens), dim=1))


class IdealBlocks(nn.Module):
    """p(x_i | its block of x_t, earlier blocks of x_0) by enumeration: the ideal denoiser of a block process."""

    time_independent, self_conditioning = True, False

    def __init__(self, process: BlockProcess, language: Language) -> None:
        super().__init__()
        self.process, self.language = process, language

    def logits(self, visible: Tensor) -> Tensor:
        """Logits of every position given the tokens of the first positions; masks carry no information."""
        ids, mask = self.language.ids, self.language.vocab_size
        visible = nn.functional.pad(visible, (0, self.language.length - visible.shape[1]), value=mask)
        same = ((visible[:, None] == ids) | (visible[:, None] == mask)).all(-1) * self.language.law.double()
        onehot = nn.functional.one_hot(ids, mask).double()
        return torch.log(torch.einsum("bn,nlv->blv", same / same.sum(-1, keepdim=True), onehot)).float()

    def forward(self, xt, t, *, batch: Batch, self_cond=None) -> Prediction:
        clean, size, blocks = batch.tokens, self.process.block_size, []
        if batch.valid_mask is not None:
            clean, xt = (torch.where(batch.valid_mask, x, self.language.vocab_size) for x in (clean, xt))
        for start in range(0, self.language.length, size):
            visible = torch.cat((clean[:, :start], xt[:, start : start + size]), dim=1)
            blocks.append(self.logits(visible)[:, start : start + size])
        return Prediction(torch.cat(blocks, dim=1))

    def begin(self, like: Tensor) -> IdealBlockCache:
        return IdealBlockCache(self, like[:, :0])


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


def ideal_masked(language: Language, schedule, density=None) -> DiffusionModel:
    """The absorbing process with its ideal denoiser."""
    process = AbsorbingProcess(language.vocab_size, schedule)
    return assemble(TokenCodec(language.vocab_size), process, IdealDenoiser(language, process, time_free=True), density)


def ideal_uniform(language: Language, schedule, density=None) -> DiffusionModel:
    """The uniform process with its ideal denoiser."""
    process = UniformProcess(language.vocab_size, schedule)
    return assemble(TokenCodec(language.vocab_size), process, IdealDenoiser(language, process), density)


def ideal_gaussian(language: Language, codec: TableCodec, schedule=None, density=None) -> DiffusionModel:
    """The Gaussian process with its ideal denoiser; sigma from 0.05 to 20 norms of a clean state."""
    process = GaussianProcess(schedule or LogSigma(0.05 * codec.norm, 20.0 * codec.norm))
    return assemble(codec, process, IdealDenoiser(language, process, codec.table()), density)


def ideal_blocks(language: Language, schedule, block_size: int) -> DiffusionModel:
    """Block diffusion with its ideal denoiser."""
    process, codec = BlockProcess(language.vocab_size, schedule, block_size), TokenCodec(language.vocab_size)
    return assemble(codec, process, IdealBlocks(process, language), window_length=language.length)


def ideal_autoregressive(language: Language) -> DiffusionModel:
    """The process from left to right with its ideal denoiser."""
    codec, process = TokenCodec(language.vocab_size), AutoregressiveProcess(language.vocab_size)
    return assemble(codec, process, ChainDenoiser(language))


def point(ids: Tensor, vocab_size: int) -> Prediction:
    """A prediction that is certain."""
    return Prediction(torch.where(nn.functional.one_hot(ids, vocab_size).bool(), 0.0, -torch.inf))


def last(steps):
    """The result of a sampler."""
    return deque(steps, maxlen=1).pop()
