"""A language small enough to enumerate: all its texts with their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.errors import UserError

L = TypeVar("L", bound="KnownLanguage")

MAX_TEXTS = 100_000
"""Of a known language: every prediction of an ideal denoiser looks at all of them."""

Positions = Bool[Tensor, " l"]
"""A choice of positions, the same in every text."""


@dataclass(frozen=True)
class KnownLanguage:
    """All texts of `length` tokens out of `vocab_size`, `texts` [n, l] in numerical order, and their `probs` [n]."""

    vocab_size: int
    length: int
    texts: Int[Tensor, "n l"]
    probs: Float[Tensor, " n"]

    @classmethod
    def of(cls: type[L], probs: Mapping[Sequence[int], float]) -> L:
        """The language of some texts (token ids from 0) with weights in proportion to their probabilities.

        Raises UserError where texts have different lengths, a weight is negative or all are 0, or where there would be
        more than `MAX_TEXTS` texts.
        """
        lengths = {len(text) for text in probs}
        if len(lengths) != 1 or 0 in lengths:
            raise UserError(f"The texts have the lengths {sorted(lengths)}; they must have one length, at least 1.")
        if min(probs.values()) < 0.0 or not sum(probs.values()) > 0.0:
            raise UserError("The weights of the texts must not be negative, and not all be 0.")
        if (lowest := min(min(text) for text in probs)) < 0:
            raise UserError(f"A text has the token {lowest}; token ids start at 0.")
        vocab_size, length = max(2, 1 + max(max(text) for text in probs)), lengths.pop()
        texts = _all_texts(vocab_size, length)
        weights = {tuple(text): weight for text, weight in probs.items()}
        dense = torch.tensor([weights.get(tuple(text), 0.0) for text in texts.tolist()], dtype=torch.float64)
        return cls(vocab_size, length, texts, (dense / dense.sum()).float())

    @classmethod
    def random(cls: type[L], vocab_size: int, length: int, seed: int = 0) -> L:
        """Correlated tokens with random probabilities; some texts are rare, and about a fifth are impossible."""
        texts = _all_texts(vocab_size, length)
        draw = torch.Generator().manual_seed(seed)
        probs = torch.empty(len(texts)).exponential_(generator=draw) ** 2
        probs = probs * (torch.rand(len(texts), generator=draw) > 0.2)
        return cls(vocab_size, length, texts, probs / probs.sum())

    @property
    def entropy(self) -> float:
        """Nats per text."""
        return float(torch.special.entr(self.probs.double()).sum())

    def number(self, tokens: Int[Tensor, "b l"]) -> Int[Tensor, " b"]:
        """The row of `texts` that each text is."""
        return (tokens * self.vocab_size ** torch.arange(self.length - 1, -1, -1)).sum(-1)

    def nll(self, known: Positions | None = None, seen: Positions | None = None) -> Float[Tensor, " n"]:
        """-log p(the seen tokens | the known ones) of every text, in nats.

        `known` positions are none by default, `seen` ones all.
        """
        known = torch.zeros(self.length, dtype=torch.bool) if known is None else known
        seen = torch.ones(self.length, dtype=torch.bool) if seen is None else seen
        return torch.log(self._marginal(known)) - torch.log(self._marginal(known | seen))

    def _marginal(self, positions: Positions) -> Float[Tensor, " n"]:
        same = ((self.texts[:, None] == self.texts[None]) | ~positions).all(-1)
        return same.double() @ self.probs.double()

    def distance(self, tokens: Int[Tensor, "b l"]) -> float:
        """Total variation between the distribution of these texts and that of the language."""
        counts = torch.bincount(self.number(tokens), minlength=len(self.probs))
        return float((counts / len(tokens) - self.probs).abs().sum() / 2)

    def floor(self, draws: int) -> float:
        """The total variation that `draws` exact samples are expected to have."""
        return float(torch.sqrt(self.probs * (1 - self.probs) / draws).sum() * (2 / torch.pi) ** 0.5 / 2)


def _all_texts(vocab_size: int, length: int) -> Int[Tensor, "n l"]:
    if vocab_size**length > MAX_TEXTS:
        raise UserError(
            f"A language of {length} tokens out of {vocab_size} has {vocab_size**length:,} texts; "
            f"a known language may have {MAX_TEXTS:,}."
        )
    return torch.tensor(list(product(range(vocab_size), repeat=length)))
