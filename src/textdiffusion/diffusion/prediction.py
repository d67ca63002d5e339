"""What a denoiser predicts of the clean tokens, p(x0 | x_t): every denoiser returns a Prediction."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..core.randomness import Rng

if TYPE_CHECKING:
    from .ratios import Graph

CHUNK_ELEMENTS = 1 << 25  # number of logits in memory at once: 128 MiB in float32

Value = Callable[..., Float[Tensor, "n *k"]]  # computed from the logits [n, v] of n positions and further arguments


def one_hot_logits(tokens: Int[Tensor, "b l"], like: Float[Tensor, "b l v"]) -> Float[Tensor, "b l v"]:
    """Logits of distributions that give all probability to `tokens`."""
    return torch.full_like(like, -torch.inf).scatter(-1, tokens[..., None], 0.0)


class Prediction:
    """p(x0 | x_t), stored as logits over the vocabulary, float32.

    `table` holds the clean states of the vocabulary where states are vectors; then `mean` is defined. It is the mean of
    the distribution if `mean_from_logits` is true.
    """

    mean_from_logits: bool = True

    def __init__(self, logits: Float[Tensor, "b l v"], table: Float[Tensor, "v d"] | None = None) -> None:
        self._logits: Tensor | None = logits
        self.table = table

    @property
    def logits(self) -> Float[Tensor, "b l v"]:
        """Unnormalised log probabilities, float32."""
        assert self._logits is not None
        return self._logits

    @property
    def probs(self) -> Float[Tensor, "b l v"]:
        """Probabilities of the clean token at every position."""
        return self.logits.softmax(-1)

    @property
    def argmax(self) -> Int[Tensor, "b l"]:
        """The most likely token at every position."""
        return self.logits.argmax(-1)

    def sample_joint(self, rng: Rng) -> Prediction:
        """This prediction if positions are independent; else one certain of a text that is sampled from their joint."""
        return self

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        """The posterior mean of the state, `probs @ table` (score interpolation: CDCD, section 3.1)."""
        assert self.table is not None, "a state of token ids has no mean"
        return self.probs @ self.table

    @property
    def x0_estimate(self) -> Float[Tensor, "b l d"]:
        """The estimate that squared error fits to the clean state."""
        return self.mean

    def with_logits(self, logits: Float[Tensor, "b l v"], known: Bool[Tensor, "b l"] | bool = False) -> Prediction:
        """This prediction with the logits that a guide has changed; the positions `known` are certain."""
        return Prediction(logits, self.table) if self.mean_from_logits else GuidedPrediction(self, logits, known)

    def nll(self, tokens: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Cross-entropy of `tokens` in nats at the positions `where`, 0 elsewhere."""
        return self.map_positions(partial(F.cross_entropy, reduction="none"), where, tokens)

    def map_positions(
        self, value: Value, where: Bool[Tensor, "b l"], *args: Shaped[Tensor, "b l"]
    ) -> Float[Tensor, "b l *k"]:
        """`value(logits [n, v], *args [n])` of the positions `where`, 0 elsewhere."""
        index = where.flatten().nonzero()[:, 0]
        values = value(self.logits.flatten(0, 1)[index], *(a.flatten()[index] for a in args))
        return self._scatter(values, index, where)

    @staticmethod
    def _scatter(values: Float[Tensor, "n *k"], index: Int[Tensor, " n"], where: Tensor) -> Float[Tensor, "b l *k"]:
        zeros = values.new_zeros(where.numel(), *values.shape[1:])
        return zeros.index_put((index,), values).unflatten(0, where.shape)

    def log_score(self, graph: Graph, xt: Int[Tensor, "b l"], t: Float[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        """The log probability ratios of a discrete process, log p_t(x_t with token y here) / p_t(x_t)."""
        return graph.log_score(self.logits, xt, t)

    def score_entropy(
        self,
        graph: Graph,
        tokens: Int[Tensor, "b l"],
        where: Bool[Tensor, "b l"],
        xt: Int[Tensor, "b l"],
        t: Float[Tensor, "b l"],
    ) -> Float[Tensor, "b l"]:
        """Score entropy of `tokens` in nats per unit of t at the positions `where`, 0 elsewhere."""
        nats = graph.score_entropy(self.log_score(graph, xt, t), tokens, xt, t)
        return torch.where(where, nats, 0.0)


class PredictionWithMean(Prediction):
    """A prediction with a given mean, which need not be that of its distribution, nor near any token."""

    mean_from_logits = False

    def __init__(
        self, logits: Float[Tensor, "b l v"], mean: Float[Tensor, "b l d"], table: Float[Tensor, "v d"] | None
    ) -> None:
        super().__init__(logits, table)
        self._mean = mean

    @property
    def mean(self) -> Float[Tensor, "b l d"]:
        return self._mean


class GuidedPrediction(Prediction):
    """A prediction with a separate mean, whose distribution a guide has changed.

    Its mean moves by as much as that of the distribution. Positions that are `known` have the mean of the distribution.
    """

    mean_from_logits = False

    def __init__(self, native: Prediction, logits: Float[Tensor, "b l v"], known: Bool[Tensor, "b l"] | bool) -> None:
        super().__init__(logits, native.table)
        self.native, self.known = native, torch.as_tensor(known, device=logits.device)

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        assert self.table is not None, "a state of token ids has no mean"
        shifted = self.native.mean + (self.probs - self.native.probs) @ self.table
        return torch.where(self.known[..., None], self.probs @ self.table, shifted)


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

    def __init__(self, hidden: Float[Tensor, "b l w"], head: Head, table: Float[Tensor, "v d"] | None = None) -> None:
        self.hidden, self.head, self.table = hidden, head, table
        self._logits = None

    @property
    def logits(self) -> Float[Tensor, "b l v"]:
        if self._logits is None:
            self._logits = self.head(self.hidden.flatten(0, 1)).float().unflatten(0, self.hidden.shape[:2])
        return self._logits

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        assert self.table is not None, "a state of token ids has no mean"
        if self._logits is not None:
            return self.probs @ self.table

        def chunk_mean(hidden: Tensor, table: Tensor) -> Tensor:
            return self.head(hidden).float().softmax(-1) @ table

        means = [self._checkpointed(chunk_mean, h, self.table) for h in self._chunks(self.hidden.flatten(0, 1))]
        return torch.cat(means).unflatten(0, self.hidden.shape[:2])

    def map_positions(
        self, value: Value, where: Bool[Tensor, "b l"], *args: Shaped[Tensor, "b l"]
    ) -> Float[Tensor, "b l *k"]:
        def chunk_value(hidden: Tensor, *args: Tensor) -> Tensor:
            return value(self.head(hidden).float(), *args)

        return self._map_hidden(where, chunk_value, *args)

    def _map_hidden(
        self, where: Bool[Tensor, "b l"], value: Value, *args: Shaped[Tensor, "b l"]
    ) -> Float[Tensor, "b l *k"]:
        """`value(hidden [n, w], *args [n])` of the positions `where`, in chunks; 0 elsewhere."""
        index = where.flatten().nonzero()[:, 0]
        inputs = (self.hidden.flatten(0, 1)[index], *(a.flatten()[index] for a in args))
        values = [self._checkpointed(value, *chunk) for chunk in zip(*map(self._chunks, inputs), strict=True)]
        return self._scatter(torch.cat(values), index, where)

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, CHUNK_ELEMENTS // self.head.vocab_size))

    def _checkpointed(self, function: Callable[..., Tensor], *args: Tensor) -> Tensor:
        one_chunk = self.hidden.shape[:2].numel() * self.head.vocab_size <= CHUNK_ELEMENTS
        if one_chunk or not torch.is_grad_enabled():
            return function(*args)
        return checkpoint(function, *args, use_reentrant=False)


class X0Prediction(LazyPrediction):
    """A prediction of the clean state itself: `hidden`, which `head` maps to logits.

    Its mean is the regressed state, or with `mean_from_logits` the mean of the distribution that the head computes from
    it, which is nearly exact if the regression is nearly right.
    """

    def __init__(
        self,
        hidden: Float[Tensor, "b l d"],
        head: Head,
        table: Float[Tensor, "v d"] | None = None,
        mean_from_logits: bool = False,
    ) -> None:
        super().__init__(hidden, head, table)
        self.mean_from_logits = mean_from_logits

    @property
    def mean(self) -> Float[Tensor, "b l d"]:
        return super().mean if self.mean_from_logits else self.hidden

    @property
    def x0_estimate(self) -> Float[Tensor, "b l d"]:
        return self.hidden


class BitPrediction(LazyPrediction):
    """An independent prediction of each bit of a code word: `hidden` is their log odds, which `head` maps to logits.

    `table` holds the code words of the tokens, whose bits are -scale or +scale.
    """

    mean_from_logits = False

    def __init__(self, log_odds: Float[Tensor, "b l d"], head: Head, table: Float[Tensor, "v d"], scale: float) -> None:
        super().__init__(log_odds, head, table)
        self.codes, self.scale = table, scale

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        """The mean of every bit: scale * (2 sigmoid(log_odds) - 1)."""
        return self.scale * torch.tanh(0.5 * self.hidden)

    def nll(self, tokens: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """The logistic loss of the bits in nats: the cross-entropy of the code word among all words, used or not."""
        signs = F.embedding(tokens, self.codes) / self.scale
        return torch.where(where, F.softplus(-signs * self.hidden).sum(-1), 0.0)
