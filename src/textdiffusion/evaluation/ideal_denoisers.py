"""Ideal denoisers of a known language: the exact distribution of the clean text given the noisy one, by enumeration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.types import Logits, NoiseTimes, Table, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.alpha_schedules import AlphaSchedule, CosineAlpha, Linear
from ..diffusion.autoregressive import AutoregressiveProcess
from ..diffusion.blocks import BlockProcess
from ..diffusion.codecs import TokenCodec
from ..diffusion.densities import TimeDensity, UniformDensity
from ..diffusion.dual import DualProcess
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.process import TokenProcess
from ..diffusion.sigma_schedules import LogSigma, NoiseSchedule
from ..diffusion.table_codecs import TableCodec, bits
from ..diffusion.uniform import UniformProcess
from ..diffusion.wave import WaveProcess
from .known_language import KnownLanguage


class IdealDenoiser(nn.Module):
    """p(x0_i | x_t, given tokens) by Bayes' rule over all texts.

    `table` holds the tokens' clean states where these are vectors (None: states are token ids).
    """

    def __init__(
        self,
        language: KnownLanguage,
        process: TokenProcess | GaussianProcess,
        table: Table | None = None,
        time_independent: bool = False,
    ) -> None:
        super().__init__()
        self.language, self.process, self.table = language, process, table
        self.time_independent, self.self_conditioning = time_independent, table is not None

    def evidence(self, xt: Tensor, t: NoiseTimes) -> Logits:
        """log q(x_t | x_0 = token) at every position, for every token."""
        columns = []
        for token in range(self.language.vocab_size):
            clean = torch.full(xt.shape[:2], token) if self.table is None else self.table[token].expand_as(xt)
            columns.append(self.process.log_likelihood(xt, clean, t))
        return torch.stack(columns, dim=-1)

    def joint(self, xt: Tensor, t: NoiseTimes, batch: Batch) -> Tensor:
        """The posterior over whole texts [b, n], in float64."""
        evidence = self.evidence(xt, t)
        if batch.condition_mask is not None:
            known = torch.where(nn.functional.one_hot(batch.tokens, self.language.vocab_size).bool(), 0.0, -torch.inf)
            evidence = torch.where(batch.condition_mask[..., None], known, evidence)
        if batch.valid_mask is not None:
            evidence = torch.where(batch.valid_mask[..., None], evidence, 0.0)
        index = self.language.texts.T[None].expand(len(xt), -1, -1)
        return (evidence.gather(-1, index).sum(1) + torch.log(self.language.probs)).double().softmax(-1)

    def forward(self, xt: Tensor, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        one_hot = nn.functional.one_hot(self.language.texts, self.language.vocab_size).double()
        probs = torch.einsum("bn,nlv->blv", self.joint(xt, t, batch), one_hot)
        return Prediction(torch.log(probs).float(), self.table)


class ChainDenoiser(nn.Module):
    """p(x_i | x_<i) by enumeration: the ideal denoiser from left to right."""

    def __init__(self, language: KnownLanguage) -> None:
        super().__init__()
        self.language, self.time_independent, self.table, self.self_conditioning = language, True, None, False

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        length = self.language.length
        padded = nn.functional.pad(xt, (0, length - xt.shape[1]))
        columns = []
        for i in range(xt.shape[1]):
            earlier = torch.arange(length) < i
            same = ((padded[:, None] == self.language.texts[None]) | ~earlier).all(-1).float() * self.language.probs
            one_hot = nn.functional.one_hot(self.language.texts[:, i], self.language.vocab_size).float()
            columns.append(same @ one_hot / same.sum(-1, keepdim=True))
        return Prediction(torch.log(torch.stack(columns, dim=1)))

    def predict_next(self, xt: Tokens, batch: Batch) -> Prediction:
        """The same prediction."""
        return self(xt, torch.zeros(len(xt)), batch=batch)


class DualIdealDenoiser(IdealDenoiser):
    """The ideal denoiser of masks, and of the next token."""

    def predict_next(self, xt: Tokens, batch: Batch) -> Prediction:
        """p(x_i | x_<i) at every position."""
        return ChainDenoiser(self.language).predict_next(xt, batch)

    def cached(self) -> ChainDenoiser:
        """The prediction of the next token, as a denoiser."""
        return ChainDenoiser(self.language)


@dataclass
class IdealBlockCache:
    """The tokens of finished blocks, in place of the cache that a network keeps of them."""

    denoiser: IdealBlocks
    tokens: Tensor
    time_independent, self_conditioning = True, False

    def __call__(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        visible = torch.cat((self.tokens[batch.row_ids], xt), dim=1)
        return Prediction(self.denoiser.logits(visible)[:, self.length : visible.shape[1]])

    @property
    def length(self) -> int:
        """Number of finished tokens."""
        return self.tokens.shape[1]

    def append(self, block: Batch) -> IdealBlockCache:
        """The cache with one more block."""
        return IdealBlockCache(self.denoiser, torch.cat((self.tokens, block.tokens), dim=1))


class IdealBlocks(nn.Module):
    """p(x_i | its block of x_t, earlier blocks of x_0) by enumeration: the ideal denoiser of a block process."""

    time_independent, self_conditioning = True, False

    def __init__(self, process: BlockProcess, language: KnownLanguage) -> None:
        super().__init__()
        self.process, self.language = process, language

    def logits(self, visible: Tensor) -> Tensor:
        """Logits of every position [b, l, v] given the tokens of the first positions; masks carry no information."""
        texts, mask = self.language.texts, self.language.vocab_size
        visible = nn.functional.pad(visible, (0, self.language.length - visible.shape[1]), value=mask)
        same = ((visible[:, None] == texts) | (visible[:, None] == mask)).all(-1) * self.language.probs.double()
        one_hot = nn.functional.one_hot(texts, mask).double()
        return torch.log(torch.einsum("bn,nlv->blv", same / same.sum(-1, keepdim=True), one_hot)).float()

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: Tensor | None = None) -> Prediction:
        clean, size, blocks = batch.tokens, self.process.block_size, []
        if batch.valid_mask is not None:
            clean, xt = (torch.where(batch.valid_mask, x, self.language.vocab_size) for x in (clean, xt))
        for start in range(0, self.language.length, size):
            visible = torch.cat((clean[:, :start], xt[:, start : start + size]), dim=1)
            blocks.append(self.logits(visible)[:, start : start + size])
        return Prediction(torch.cat(blocks, dim=1))

    def begin(self, like: Tokens) -> IdealBlockCache:
        """An empty cache."""
        return IdealBlockCache(self, like[:, :0])


def ideal_masked(
    language: KnownLanguage, schedule: AlphaSchedule, density: TimeDensity | None = None
) -> DiffusionModel:
    """The absorbing process with its ideal denoiser."""
    process = AbsorbingProcess(language.vocab_size, schedule)
    denoiser = IdealDenoiser(language, process, time_independent=True)
    return _model(TokenCodec(language.vocab_size), process, denoiser, density)


def ideal_uniform(
    language: KnownLanguage, schedule: AlphaSchedule, density: TimeDensity | None = None
) -> DiffusionModel:
    """The uniform process with its ideal denoiser."""
    process = UniformProcess(language.vocab_size, schedule)
    return _model(TokenCodec(language.vocab_size), process, IdealDenoiser(language, process), density)


def ideal_gaussian(
    language: KnownLanguage,
    codec: TableCodec,
    schedule: NoiseSchedule | None = None,
    density: TimeDensity | None = None,
) -> DiffusionModel:
    """The Gaussian process with its ideal denoiser; by default sigma is from 0.05 to 20 norms of a clean state."""
    process = GaussianProcess(schedule or LogSigma(0.05 * codec.norm, 20.0 * codec.norm))
    return _model(codec, process, IdealDenoiser(language, process, codec.table()), density)


def ideal_blocks(language: KnownLanguage, schedule: AlphaSchedule, block_size: int) -> DiffusionModel:
    """Block diffusion with its ideal denoiser."""
    process, codec = BlockProcess(language.vocab_size, schedule, block_size), TokenCodec(language.vocab_size)
    return _model(codec, process, IdealBlocks(process, language), window_length=language.length)


def ideal_autoregressive(language: KnownLanguage) -> DiffusionModel:
    """The process from left to right with its ideal denoiser."""
    codec, process = TokenCodec(language.vocab_size), AutoregressiveProcess(language.vocab_size)
    return _model(codec, process, ChainDenoiser(language))


def ideal_dual(language: KnownLanguage, schedule: AlphaSchedule) -> DiffusionModel:
    """Masks and left to right in one, with the ideal denoiser."""
    process = DualProcess(language.vocab_size, schedule)
    denoiser = DualIdealDenoiser(language, process, time_independent=True)
    return _model(TokenCodec(language.vocab_size), process, denoiser)


def ideal_wave(language: KnownLanguage, schedule: AlphaSchedule, width: int) -> DiffusionModel:
    """Masks in a wave with the ideal denoiser, which is that of masks however they come about."""
    process = WaveProcess(language.vocab_size, schedule, width=width)
    denoiser = IdealDenoiser(language, AbsorbingProcess(language.vocab_size, schedule), time_independent=True)
    return _model(TokenCodec(language.vocab_size), process, denoiser)


def ideal_models(language: KnownLanguage) -> dict[str, DiffusionModel]:
    """A model with its ideal denoiser for each kind of process, by name."""
    codec = TableCodec(bits(language.vocab_size))
    # To 200 norms: a prior of 20 norms that does not know the mean of the data costs samplers without noise about 0.01.
    schedule = LogSigma(0.05 * codec.norm, 200.0 * codec.norm)
    return {
        "masked": ideal_masked(language, CosineAlpha()),
        "uniform": ideal_uniform(language, Linear()),
        "Gaussian": ideal_gaussian(language, codec, schedule),
        "blocks": ideal_blocks(language, Linear(), block_size=2),
        "left to right": ideal_autoregressive(language),
        "dual training": ideal_dual(language, Linear()),
        "wave": ideal_wave(language, Linear(), width=language.length - 1),
    }


def _model(
    codec: nn.Module,
    process: nn.Module,
    denoiser: nn.Module,
    density: TimeDensity | None = None,
    window_length: int = 0,
) -> DiffusionModel:
    return DiffusionModel(codec, process, density or UniformDensity(), denoiser, window_length).eval()
