"""A causal denoiser that remembers the tokens it has read, for sampling from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.types import NoiseTimes, Tokens
from ..diffusion.prediction import Prediction
from .kv_cache import KVCache

MAX_PREFIXES = 2  # with and without a condition, for classifier-free guidance


@runtime_checkable
class CachedNetwork(Protocol):
    """A network whose features of a position depend on the tokens before it alone."""

    backbone: Any
    head: Any

    def previous_tokens(self, xt: Tokens, batch: Batch) -> Tokens: ...

    def causal_features(
        self, previous: Tokens, batch: Batch, start: int = 0, caches: Sequence[KVCache] | None = None
    ) -> Float[Tensor, "b n w"]: ...


@dataclass
class Prefix:
    """What the network has read of some rows, with its keys and values and the logits of the last position."""

    inputs: Int[Tensor, "k b n"]
    caches: list[KVCache]
    logits: Float[Tensor, "b 1 v"]

    def begins(self, inputs: Int[Tensor, "k b l"]) -> bool:
        """Whether the rows `inputs` begin with what was read."""
        return torch.equal(self.inputs, inputs[:, :, : self.inputs.shape[2]])


class PrefixCache:
    """The denoiser of a causal network; positions that it has read cost nothing.

    It compares its input with what it has read, so its predictions are those of the network whoever calls it, and in
    whatever order. Only the prediction of the last position is computed: the tokens before it are known, and the same
    logits stand for them.
    """

    time_independent = True
    self_conditioning = False

    def __init__(self, network: CachedNetwork) -> None:
        self.network = network
        self.prefixes: list[Prefix] = []  # the latest last

    def __call__(self, xt: Tokens, t: NoiseTimes, *, batch: Batch, self_cond: None = None) -> Prediction:
        """p(x_i | x_{<i}) at the last position."""
        previous = self.network.previous_tokens(xt, batch)
        inputs = _inputs(previous, batch)
        known = next((prefix for prefix in self.prefixes if prefix.begins(inputs)), None)
        start = 0 if known is None else known.inputs.shape[2]
        if known is None or start < xt.shape[1]:
            caches = [KVCache() for _ in self.network.backbone.blocks] if known is None else known.caches
            features = self.network.causal_features(previous, batch, start, caches)[:, -1]
            self.prefixes = [prefix for prefix in self.prefixes if prefix is not known]
            known = Prefix(inputs, caches, self.network.head(features).float()[:, None])
            self.prefixes = [*self.prefixes, known][-MAX_PREFIXES:]
        return Prediction(known.logits.expand(-1, xt.shape[1], -1))


def _inputs(previous: Tokens, batch: Batch) -> Int[Tensor, "k b l"]:
    """Everything that the network reads of a row, as numbers per position."""
    none = torch.zeros_like(previous)
    valid = none if batch.valid_mask is None else 1 + batch.valid_mask
    segments = none if batch.segment_ids is None else batch.segment_ids
    labels = none if batch.labels is None else batch.labels[:, None].expand_as(previous)
    return torch.stack((previous, valid, segments, labels))
