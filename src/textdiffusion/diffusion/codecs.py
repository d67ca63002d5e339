"""Bits, one-hot vectors, simplices and embeddings are one codec: a row of a table for each token."""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Normalisation = Literal["none", "l2", "layer", "affine"]


class TableCodec(nn.Module):
    """Clean states are rows of `table()`; the posterior mean of the state is `probs @ table()`.

    A normalised row has unit root mean square: L2-normalised, times sqrt(d) (`l2`: CDCD, section 3.3), or that of a
    centred row, which is a layer norm (`layer`), followed or not by a learned gain and shift of each coordinate
    (`affine`: Difformer, section 3.3). There is no eps that a small initial table could fall below. Without
    normalisation a learned table trained by cross-entropy grows until the task is trivial.

    Noise is measured in units of `norm`, and must not be when that moves: a table that learns without normalisation is
    told its `unit` once and for all, and the bound counts how far it has grown or shrunk beside it.
    """

    def __init__(
        self,
        weight: Float[Tensor, "v d"],
        learned: bool = False,
        normalise: Normalisation = "none",
        unit: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=learned)
        self.normalise, self.unit = normalise, unit
        self.vocab_size, self.dim = weight.shape
        affine = normalise == "affine"
        self.gain = nn.Parameter(torch.ones(self.dim), requires_grad=learned) if affine else None
        self.shift = nn.Parameter(torch.zeros(self.dim), requires_grad=learned) if affine else None

    @property
    def norm(self) -> float:
        """Root mean square norm of a clean state, the unit of noise; where it may move, where it starts."""
        if self.unit is not None:
            return self.unit
        if self.normalise != "none":
            return math.sqrt(self.dim)
        return float(self.weight.detach().square().sum(-1).mean().sqrt())

    @property
    def scale(self) -> float:
        """Root mean square of a clean state's coordinates."""
        return self.norm / math.sqrt(self.dim)

    def table(self) -> Float[Tensor, "v d"]:
        """The clean state of every token, float32."""
        rows = self.weight.float()
        if self.normalise == "none":
            return rows
        if self.normalise != "l2":
            rows = rows - rows.mean(-1, keepdim=True)
        rows = F.normalize(rows, dim=-1) * math.sqrt(self.dim)
        return rows if self.gain is None or self.shift is None else rows * self.gain + self.shift

    def encode(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """The rows of the table at `ids`."""
        # Through the embedding kernel: its backward is a sum by token, not a scatter over positions.
        return F.embedding(ids, self.table())

    def evidence(self, x: Float[Tensor, "*b d"], sigma: Float[Tensor, "*s"]) -> Float[Tensor, "*b v"]:
        """log N(x; row, sigma^2) of every token up to a constant: what a noisy state says by itself."""
        table = self.table()
        return (x @ table.T - 0.5 * table.square().sum(-1)) / sigma**2

    def mean(self, probs: Float[Tensor, "b l v"]) -> Float[Tensor, "b l d"]:
        """The expected state."""
        return probs @ self.table()


class BitCodec(TableCodec):
    """Clean states are code words of bits, -scale or +scale. Words that belong to no token are never decoded."""

    def __init__(self, weight: Float[Tensor, "v d"], scale: float) -> None:
        super().__init__(weight)
        self.bit = scale

    @property
    def norm(self) -> float:
        """The norm of every clean state."""
        return self.bit * math.sqrt(self.dim)


Code = Literal["base", "gray", "random"]


def bits(vocab_size: int, scale: float = 1.0, code: Code = "base") -> Float[Tensor, "v d"]:
    """Analog bits: a code word of ceil(log2 V) bits for each id, as -scale / +scale (Chen et al. 2022, 2.1).

    The word is the binary digits of the id, most significant first; in `gray` code, where neighbours differ in one
    bit; or drawn at `random`, without repetition.
    """
    width = max(1, (vocab_size - 1).bit_length())
    number = torch.randperm(2**width)[:vocab_size] if code == "random" else torch.arange(vocab_size)
    if code == "gray":
        number = number ^ (number >> 1)
    digits = number[:, None] >> torch.arange(width - 1, -1, -1) & 1
    return (2.0 * digits - 1.0) * scale


class SimplexCodec(TableCodec):
    """Almost-one-hot logits, K at the token and -K elsewhere (SSD-LM, section 3.1), less the constant -K.

    No softmax sees the constant and noise does not hide it, but a prior around 0 would have to pay for it. So a clean
    state is a corner of `height` 2 K, which is its norm.
    """

    def __init__(self, vocab_size: int, scale: float = 5.0) -> None:
        super().__init__(2.0 * scale * torch.eye(vocab_size))
        self.height = 2.0 * scale

    @property
    def norm(self) -> float:
        """The norm of every clean state."""
        return self.height


class TokenCodec(nn.Module):
    """Clean states are token ids in 0 .. vocab-1."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def encode(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """The ids."""
        return ids


@runtime_checkable
class Codec(Protocol):
    """Encodes token ids into clean states."""

    vocab_size: int

    def encode(self, ids: Int[Tensor, "b l"]) -> Tensor: ...
