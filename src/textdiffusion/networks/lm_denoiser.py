"""Denoisers around a language model: its own embedding and head, with the mask as one of its rows."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..core.errors import UserError
from ..core.registry import builds, check_bounds
from ..core.types import Hidden, NoiseTimes, Probs, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.blocks import BlockProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from .attention import attention_mask
from .block_denoiser import BlockCache
from .denoiser import DenoiserConfig, LabelConditioned
from .kv_cache import KVCache
from .language_model import LanguageModel, previous_positions, row_positions


@dataclass(frozen=True)
class LMVocabularyConfig(DenoiserConfig, ABC):
    """How a language model reads the states of a process and what its logits mean.

    `mask_id` is the row of its embedding that stands for the mask (-1: the row after the tokenizer's tokens); as a
    token it is never predicted. Nor are `unused`, ids below the tokenizer's largest that no token has. With `shift` the
    logits of a position are those of the next one, as in causal language models.
    """

    backbones: ClassVar = (LanguageModel,)

    mask_id: int = -1
    shift: bool = False
    unused: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_bounds(self, mask_id=(-1, None))


@dataclass(frozen=True)
class LMDenoiserConfig(LMVocabularyConfig):
    """All positions see each other (LLaDA, Dream)."""

    processes: ClassVar = (AbsorbingProcess,)


@dataclass(frozen=True)
class LMBlockDenoiserConfig(LMVocabularyConfig):
    """Every block sees itself and those before it (SDAR, Fast-dLLM v2)."""

    processes: ClassVar = (BlockProcess,)


class LMVocabulary:
    """The head, as a `Prediction` needs it, and the embedding of states: `mask`, the id of the mask, has its row."""

    def __init__(self, backbone: LanguageModel, vocab_size: int, config: LMVocabularyConfig) -> None:
        self.backbone, self.vocab_size = backbone, vocab_size
        self.mask_id = vocab_size if config.mask_id < 0 else config.mask_id
        if self.mask_id >= backbone.num_rows:
            raise UserError(f"denoiser.mask_id is {self.mask_id}, but the embedding has {backbone.num_rows:,} rows.")
        if wrong := [i for i in config.unused if not 0 <= i < vocab_size]:
            raise UserError(f"denoiser.unused has {wrong[0]}, which is outside the {vocab_size:,} tokens.")
        never = sorted({*config.unused, self.mask_id} & set(range(vocab_size)))
        self._never = torch.tensor(never, dtype=torch.long, device="cpu")

    def __call__(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        """Logits of the tokens. Tokens that are never predicted have none."""
        logits = self.backbone.head(hidden)[:, : self.vocab_size]
        if self._never.device != logits.device:
            self._never = self._never.to(logits.device)
        return logits.index_fill_(-1, self._never, -torch.inf)  # in place: the head's own output, which is large

    def embed(self, x: Tokens) -> Hidden:
        """The vectors of states."""
        return self.backbone.embed(torch.where(x == self.vocab_size, self.mask_id, x))


@builds(LMDenoiserConfig)
class LMDenoiser(LabelConditioned):
    """A language model whose positions all see each other. The masks show the time, which is no input."""

    time_independent = True
    self_conditioning = False

    def __init__(self, backbone: LanguageModel, process: AbsorbingProcess, config: LMDenoiserConfig) -> None:
        super().__init__()
        self.backbone = backbone  # pyrefly: ignore[bad-assignment]
        self.process, self.shift = process, config.shift
        self.vocabulary = LMVocabulary(backbone, process.vocab_size, config)

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """p(x_0 | x_t) at every position."""
        return self._predict(self.vocabulary.embed(xt), batch)

    def forward_soft(self, soft: Probs, xt: Tokens, t: NoiseTimes, *, batch: Batch) -> Prediction:
        """The same, with mixtures of states, `soft`, embedded instead of x_t."""
        states = torch.arange(soft.shape[-1], device=soft.device)[None]
        return self._predict(soft.to(self.vocabulary.backbone.dtype) @ self.vocabulary.embed(states)[0], batch)

    def _predict(self, features: Hidden, batch: Batch) -> Prediction:
        positions = row_positions(position_ids(batch), batch.valid_mask)
        hidden = self.backbone(self.add_label(features, batch), None, positions, attention_mask("full", batch))
        if self.shift:
            hidden = previous_positions(hidden, positions == 0)
        return LazyPrediction(hidden, self.vocabulary)


@builds(LMBlockDenoiserConfig)
class LMBlockDenoiser(nn.Module):
    """A language model that predicts a block from its noisy tokens and the clean blocks before it.

    With `shift`, the first token of a block comes from the clean token before it.
    """

    time_independent = True
    self_conditioning = False

    def __init__(self, backbone: LanguageModel, process: BlockProcess, config: LMBlockDenoiserConfig) -> None:
        super().__init__()
        if backbone.window or not backbone.is_causal_type:
            raise UserError("denoiser.kind=lm_block_denoiser needs a causal language model without sliding attention.")
        self.backbone, self.process, self.shift = backbone, process, config.shift
        self.vocabulary = LMVocabulary(backbone, process.vocab_size, config)

    def forward(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """All blocks in one pass over two copies [x_t ; x_0], where x_0 is `batch.tokens` (BD3-LM, section 4)."""
        length, columns = xt.shape[1], position_ids(batch)
        positions = row_positions(columns, batch.valid_mask)
        features = self.vocabulary.embed(torch.cat((xt, batch.tokens), dim=1))
        mask = attention_mask("two_stream", batch, self.process.block_size)
        hidden = self.backbone(features, None, positions.repeat(1, 2), mask)
        noisy, clean = hidden[:, :length], hidden[:, length:]
        if self.shift:
            left = torch.where((columns % self.process.block_size == 0)[..., None], clean.roll(1, 1), noisy.roll(1, 1))
            noisy = torch.where((positions == 0)[..., None], noisy, left)
        return LazyPrediction(noisy, self.vocabulary)

    def begin(self, like: Tokens) -> BlockCache:
        """The cache before the first block, for as many rows as `like` has."""
        return BlockCache(self, Batch(like[:, :0]), [KVCache() for _ in self.backbone.blocks])

    def encode(self, rows: Batch, start: int, caches: list[KVCache]) -> Hidden:
        """The features of `rows` from position `start`, after the positions in `caches`, which grow."""
        positions = row_positions(position_ids(rows), rows.valid_mask)
        sees_all = rows.tokens.shape[1] - start <= self.process.block_size and rows.valid_mask is None
        mask = None if sees_all else attention_mask("block_causal", rows, self.process.block_size)
        mask = mask if mask is None else mask[:, :, start:]
        return self.backbone(self.vocabulary.embed(rows.tokens[:, start:]), None, positions[:, start:], mask, caches)

    def predict(self, hidden: Hidden, rows: Batch, before: Float[Tensor, "b 1 w"] | None) -> Prediction:
        """The prediction from the features of the last positions of `rows`; `before` are those left of them."""
        if self.shift:
            positions = row_positions(position_ids(rows), rows.valid_mask)[:, -hidden.shape[1] :]
            hidden = previous_positions(hidden, positions == 0, before)
        return LazyPrediction(hidden, self.vocabulary)
