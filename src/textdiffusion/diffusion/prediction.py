"""What a denoiser predicts of the clean tokens, p(x0 | x_t): every denoiser returns a Prediction."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..core.randomness import Rng
from ..core.types import Hidden, Logits, Mask, PerPosition, Probs, Table, Tokens, Vectors
from .ratios import Graph

CHUNK_ELEMENTS = 1 << 25  # number of logits in memory at once: 128 MiB in float32

PositionFn = Callable[..., Float[Tensor, "n *k"]]
"""A function of the logits [n, v] or features [n, w] of n positions, and of further arguments [n]."""


def one_hot_logits(tokens: Tokens, like: Logits) -> Logits:
    """Logits of distributions that give all probability to `tokens`."""
    return torch.full_like(like, -torch.inf).scatter(-1, tokens[..., None], 0.0)


class Prediction:
    """p(x0 | x_t), stored as logits over the vocabulary, float32.

    `table` holds the clean states of the vocabulary where states are vectors; then `mean` is defined.
    """

    has_own_score: ClassVar[bool] = False  # its `log_score` is not that of its logits: `MixedScorePrediction`
    _confidence_logits: Tensor | None = None

    def __init__(self, logits: Logits, table: Table | None = None) -> None:
        self._logits: Tensor | None = logits
        self.table = table

    @property
    def logits(self) -> Logits:
        """Unnormalised log probabilities, float32."""
        assert self._logits is not None
        return self._logits

    @property
    def probs(self) -> Probs:
        """Probabilities of the clean token at every position."""
        return self.logits.softmax(-1)

    @property
    def argmax(self) -> Tokens:
        """The most likely token at every position."""
        return self.logits.argmax(-1)

    @property
    def confidence_logits(self) -> Logits:
        """The logits that show how certain a prediction is; those before `greedy`, which makes everything certain."""
        return self.logits if self._confidence_logits is None else self._confidence_logits

    def greedy(self) -> Prediction:
        """Certainty of the most likely tokens."""
        certain = self.with_logits(one_hot_logits(self.argmax, self.logits))
        certain._confidence_logits = self.logits
        return certain

    def sample_joint(self, rng: Rng) -> Prediction:
        """This prediction if positions are independent; else one certain of a text that is sampled from their joint."""
        return self

    @cached_property
    def mean(self) -> Vectors:
        """The posterior mean of the state, `probs @ table` (score interpolation: CDCD, section 3.1)."""
        assert self.table is not None, "a state of token ids has no mean"
        return self.probs @ self.table

    @property
    def x0_estimate(self) -> Vectors:
        """The estimate that squared error fits to the clean state."""
        return self.mean

    def with_logits(self, logits: Logits, known: Mask | bool = False) -> Prediction:
        """This prediction with the logits that a guide has changed; the positions `known` are certain."""
        return Prediction(logits, self.table)

    def nll(self, tokens: Tokens, where: Mask) -> PerPosition:
        """Cross-entropy of `tokens` in nats at the positions `where`, 0 elsewhere."""
        return self.map_positions(partial(F.cross_entropy, reduction="none"), where, tokens)

    def map_positions(self, function: PositionFn, where: Mask, *args: Shaped[Tensor, "b l"]) -> Float[Tensor, "b l *k"]:
        """`function(logits [n, v], *args [n])` of the positions `where`, 0 elsewhere."""
        index = where.flatten().nonzero()[:, 0]
        values = function(self.logits.flatten(0, 1)[index], *(a.flatten()[index] for a in args))
        return self._scatter(values, index, where)

    @staticmethod
    def _scatter(values: Float[Tensor, "n *k"], index: Int[Tensor, " n"], where: Tensor) -> Float[Tensor, "b l *k"]:
        zeros = values.new_zeros(where.numel(), *values.shape[1:])
        return zeros.index_put((index,), values).unflatten(0, where.shape)

    def log_score(self, graph: Graph, xt: Tokens, t: PerPosition) -> Logits:
        """The log probability ratios of a discrete process, log p_t(x_t with token y here) / p_t(x_t)."""
        return graph.log_score(self.logits, xt, t)

    def score_entropy(self, graph: Graph, tokens: Tokens, where: Mask, xt: Tokens, t: PerPosition) -> PerPosition:
        """Score entropy of `tokens` in nats per unit of t at the positions `where`, 0 elsewhere."""
        return torch.where(where, graph.score_entropy(self.log_score(graph, xt, t), tokens, xt, t), 0.0)


class MixedScorePrediction(Prediction):
    """A prediction with a log score of its own, such as a mixture of two, which need not be that of any clean tokens.

    Under noise of tokens, steps follow the score: read as a distribution of clean tokens it would be clipped at 0.
    """

    has_own_score: ClassVar[bool] = True

    def __init__(self, logits: Logits, log_score: Logits) -> None:
        super().__init__(logits)
        self._log_score = log_score

    def log_score(self, graph: Graph, xt: Tokens, t: PerPosition) -> Logits:
        return self._log_score


@runtime_checkable
class Head(Protocol):
    """Maps hidden states to logits over the vocabulary."""

    vocab_size: int

    def __call__(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]: ...


class LazyPrediction(Prediction):
    """p(x0 | x_t), stored as hidden states; logits are computed for a chunk of positions at a time, or all on request.

    The logits of a large vocabulary dominate memory, so `map_positions` and `mean` compute them in chunks and again in
    the backward pass, and `map_positions` only at the positions it is given.
    """

    def __init__(self, hidden: Hidden, head: Head, table: Table | None = None) -> None:
        self.hidden, self.head, self.table = hidden, head, table
        self._logits = None

    @property
    def logits(self) -> Logits:
        if self._logits is None:
            self._logits = self.head(self.hidden.flatten(0, 1)).float().unflatten(0, self.hidden.shape[:2])
        return self._logits

    @cached_property
    def mean(self) -> Vectors:
        assert self.table is not None, "a state of token ids has no mean"
        if self._logits is not None:
            return self.probs @ self.table

        def chunk_mean(hidden: Tensor, table: Tensor) -> Tensor:
            return self.head(hidden).float().softmax(-1) @ table

        means = [self._checkpointed(chunk_mean, h, self.table) for h in self._chunks(self.hidden.flatten(0, 1))]
        return torch.cat(means).unflatten(0, self.hidden.shape[:2])

    def map_positions(self, function: PositionFn, where: Mask, *args: Shaped[Tensor, "b l"]) -> Float[Tensor, "b l *k"]:
        def chunk_value(hidden: Tensor, *args: Tensor) -> Tensor:
            return function(self.head(hidden).float(), *args)

        return self._map_hidden(where, chunk_value, *args)

    def _map_hidden(self, where: Mask, function: PositionFn, *args: Shaped[Tensor, "b l"]) -> Float[Tensor, "b l *k"]:
        """`function(hidden [n, w], *args [n])` of the positions `where`, in chunks; 0 elsewhere."""
        index = where.flatten().nonzero()[:, 0]
        inputs = (self.hidden.flatten(0, 1)[index], *(a.flatten()[index] for a in args))
        values = [self._checkpointed(function, *chunk) for chunk in zip(*map(self._chunks, inputs), strict=True)]
        return self._scatter(torch.cat(values), index, where)

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, CHUNK_ELEMENTS // self.head.vocab_size))

    def _checkpointed(self, function: Callable[..., Tensor], *args: Tensor) -> Tensor:
        one_chunk = self.hidden.shape[:2].numel() * self.head.vocab_size <= CHUNK_ELEMENTS
        if one_chunk or not torch.is_grad_enabled():
            return function(*args)
        return checkpoint(function, *args, use_reentrant=False)
