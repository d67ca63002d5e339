"""What a denoiser says about the clean tokens, p(x0 | x_t): the common currency of the package."""

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

CHUNK_ELEMENTS = 1 << 25  # logits held at once by the chunked head: 128 MiB in float32

Value = Callable[..., Float[Tensor, "n *k"]]  # of the logits of some positions [n, v] and what else is known of them


def one_hot_logits(ids: Int[Tensor, "b l"], like: Float[Tensor, "b l v"]) -> Float[Tensor, "b l v"]:
    """Logits of laws that give all probability to `ids`."""
    return torch.full_like(like, -torch.inf).scatter(-1, ids[..., None], 0.0)


class Prediction:
    """p(x0 | x_t) held as logits over the vocabulary, float32.

    `table` holds the clean states of the vocabulary where states are vectors; then `mean` is defined. It is that of the
    law unless `interpolated` is false.
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
        """The likeliest text."""
        return self.logits.argmax(-1)

    def sample_joint(self, rng: Rng) -> Prediction:
        """The same where positions are independent; else certain of one text, drawn from the law as a whole."""
        return self

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        """The posterior mean of the state, `probs @ table` (score interpolation: CDCD, section 3.1)."""
        assert self.table is not None, "a state of token ids has no mean"
        return self.probs @ self.table

    @property
    def x0_estimate(self) -> Float[Tensor, "b l d"]:
        """What squared error fits to the clean state."""
        return self.mean

    def with_logits(self, logits: Float[Tensor, "b l v"], known: Bool[Tensor, "b l"] | bool = False) -> Prediction:
        """The same under the law that a guide makes of this one, which is certain of the positions `known`."""
        return Prediction(logits, self.table) if self.mean_from_logits else GuidedPrediction(self, logits, known)

    def nll(self, ids: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Cross-entropy of `ids` in nats at the positions `where`, 0 elsewhere."""
        return self.map_positions(partial(F.cross_entropy, reduction="none"), where, ids)

    def map_positions(
        self, value: Value, where: Bool[Tensor, "b l"], *args: Shaped[Tensor, "b l"]
    ) -> Float[Tensor, "b l *k"]:
        """`value(logits [n, v], *args [n])` of the positions `where`, 0 elsewhere."""
        index = where.flatten().nonzero()[:, 0]
        return self._placed(value(self.logits.flatten(0, 1)[index], *(a.flatten()[index] for a in args)), index, where)

    @staticmethod
    def _placed(values: Float[Tensor, "n *k"], index: Int[Tensor, " n"], where: Tensor) -> Float[Tensor, "b l *k"]:
        zeros = values.new_zeros(where.numel(), *values.shape[1:])
        return zeros.index_put((index,), values).unflatten(0, where.shape)

    def log_score(self, graph: Graph, xt: Int[Tensor, "b l"], t: Float[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        """The same as log ratios of probabilities, log p_t(x_t with token y here) / p_t(x_t), of a discrete process."""
        return graph.log_score(self.logits, xt, t)

    def score_entropy(
        self,
        graph: Graph,
        ids: Int[Tensor, "b l"],
        where: Bool[Tensor, "b l"],
        xt: Int[Tensor, "b l"],
        t: Float[Tensor, "b l"],
    ) -> Float[Tensor, "b l"]:
        """Score entropy of `ids` in nats per unit of t at the positions `where`, 0 elsewhere."""
        nats = graph.score_entropy(self.log_score(graph, xt, t), ids, xt, t)
        return torch.where(where, nats, 0.0)


class PredictionWithMean(Prediction):
    """A prediction whose mean has been put where that of its law is not; it may lie outside of all tokens."""

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
    """A prediction with a mean of its own whose law a guide has changed.

    The mean moves by as much as that of the law does, so it stays where the law stays; what is `known` is exact.
    """

    mean_from_logits = False

    def __init__(self, native: Prediction, logits: Float[Tensor, "b l v"], known: Bool[Tensor, "b l"] | bool) -> None:
        super().__init__(logits, native.table)
        self.native, self.known = native, torch.as_tensor(known, device=logits.device)

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        assert self.table is not None, "a state of token ids has no mean"
        moved = self.native.mean + (self.probs - self.native.probs) @ self.table
        return torch.where(self.known[..., None], self.probs @ self.table, moved)


@runtime_checkable
class Head(Protocol):
    """Maps hidden states to logits over the vocabulary."""

    vocab_size: int

    def __call__(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]: ...


class LazyPrediction(Prediction):
    """p(x0 | x_t) held as hidden states; logits exist a chunk of positions at a time, or whole on request.

    The logits of a large vocabulary are the memory cost of everything, so `each` and `mean` compute them in chunks
    and again in the backward pass, and `each` only at the positions asked for.
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

        def part(hidden: Tensor, table: Tensor) -> Tensor:
            return self.head(hidden).float().softmax(-1) @ table

        parts = [self._recomputed(part, h, self.table) for h in self._chunks(self.hidden.flatten(0, 1))]
        return torch.cat(parts).unflatten(0, self.hidden.shape[:2])

    def map_positions(
        self, value: Value, where: Bool[Tensor, "b l"], *args: Shaped[Tensor, "b l"]
    ) -> Float[Tensor, "b l *k"]:
        def part(hidden: Tensor, *args: Tensor) -> Tensor:
            return value(self.head(hidden).float(), *args)

        return self._at(where, part, *args)

    def _at(self, where: Bool[Tensor, "b l"], part, *args: Shaped[Tensor, "b l"]) -> Float[Tensor, "b l *k"]:
        """`part` of the hidden states and `args` at the positions `where`, in chunks; 0 elsewhere."""
        index = where.flatten().nonzero()[:, 0]
        picked = (self.hidden.flatten(0, 1)[index], *(a.flatten()[index] for a in args))
        parts = [self._recomputed(part, *chunk) for chunk in zip(*map(self._chunks, picked), strict=True)]
        return self._placed(torch.cat(parts), index, where)

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, CHUNK_ELEMENTS // self.head.vocab_size))

    def _recomputed(self, part, *args: Tensor) -> Tensor:
        whole = self.hidden.shape[:2].numel() * self.head.vocab_size <= CHUNK_ELEMENTS
        return part(*args) if whole or not torch.is_grad_enabled() else checkpoint(part, *args, use_reentrant=False)


class X0Prediction(LazyPrediction):
    """A prediction of the clean state itself: `hidden`, from which `head` reads logits.

    Its mean is the regressed state, whether or not it is the mean of the law that was read from it; or, `interpolated`,
    the mean of that law, which a regression that is nearly right makes nearly exact.
    """

    def __init__(
        self,
        hidden: Float[Tensor, "b l d"],
        head: Head,
        table: Float[Tensor, "v d"] | None = None,
        interpolated: bool = False,
    ) -> None:
        super().__init__(hidden, head, table)
        self.mean_from_logits = interpolated

    @property
    def mean(self) -> Float[Tensor, "b l d"]:
        return super().mean if self.mean_from_logits else self.hidden

    @property
    def x0_estimate(self) -> Float[Tensor, "b l d"]:
        return self.hidden


class BitPrediction(LazyPrediction):
    """A prediction of each bit of a code word by itself: `hidden` is their log odds, and `head` reads logits from them.

    `table` holds the code words of the tokens, whose bits are -scale or +scale.
    """

    mean_from_logits = False

    def __init__(self, odds: Float[Tensor, "b l d"], head: Head, table: Float[Tensor, "v d"], scale: float) -> None:
        super().__init__(odds, head, table)
        self.codes, self.scale = table, scale

    @cached_property
    def mean(self) -> Float[Tensor, "b l d"]:
        """The mean of every bit: scale * (2 sigmoid(odds) - 1)."""
        return self.scale * torch.tanh(0.5 * self.hidden)

    def nll(self, ids: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """The logistic loss of the bits in nats: the cross-entropy of the code word among all words, used or not."""
        signs = F.embedding(ids, self.codes) / self.scale
        return torch.where(where, F.softplus(-signs * self.hidden).sum(-1), 0.0)
