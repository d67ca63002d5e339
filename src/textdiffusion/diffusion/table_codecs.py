"""Codecs whose states are vectors. Bits, simplices and embeddings are one kind: a table with a row for each token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.registry import builds, check_bounds
from ..core.types import Probs, Table, Tokens, Vectors
from .codecs import CodecConfig

Code = Literal["base", "gray", "random"]
Normalisation = Literal["none", "l2", "layer", "affine"]


class TableCodec(nn.Module):
    """Clean states are the rows of `table()`; the posterior mean of a state is `probs @ table()`.

    `norm` is the unit in which noise is measured.
    """

    def __init__(self, weight: Table, learned: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=learned)
        self.vocab_size, self.dim = weight.shape

    @property
    def norm(self) -> float:
        """Root mean square norm of a clean state."""
        return float(self.weight.detach().square().sum(-1).mean().sqrt())

    @property
    def scale(self) -> float:
        """Root mean square of a clean state's coordinates."""
        return self.norm / math.sqrt(self.dim)

    def table(self) -> Table:
        """The clean state of every token, float32."""
        return self.weight.float()

    def encode(self, tokens: Tokens) -> Vectors:
        """The rows of the table at `tokens`."""
        # The embedding kernel's backward sums by token instead of scattering over positions.
        return F.embedding(tokens, self.table())

    def evidence(self, x: Float[Tensor, "*b d"], sigma: Float[Tensor, "*s"]) -> Float[Tensor, "*b v"]:
        """log N(x; row, sigma^2) of every token's row, up to a constant: the likelihood of each token given x alone."""
        table = self.table()
        return (x @ table.T - 0.5 * table.square().sum(-1)) / sigma**2

    def mean(self, probs: Probs) -> Vectors:
        """The expected clean state."""
        return probs @ self.table()


@dataclass(frozen=True)
class Embeddings(CodecConfig):
    """States are learned vectors of root mean square 1, unless `norm` is `none`.

    `l2` normalises their length, `layer` is a layer norm, `affine` one with a learned gain and shift. With `none` they
    begin at `init_std`, which is then the unit of noise, and are not normalised. Without `learned` they are fixed.

    `pretrained` vectors replace the random ones when training begins: a .txt file with a token and its numbers on each
    line, a .safetensors file with one table in the order of the tokenizer, or the folder of a pretrained encoder.
    """

    dim: int = 64
    init_std: float = 1e-3
    norm: Normalisation = "l2"
    pretrained: str = ""
    learned: bool = True

    def __post_init__(self) -> None:
        # A centred row of one coordinate is zero, and one of two coordinates has only a sign.
        check_bounds(self, dim=(1 if self.norm in ("l2", "none") else 3, None), init_std=(1e-9, None))
        if self.norm == "none" and self.learned and self.init_std < 0.1:
            raise UserError(
                f"codec.init_std is {self.init_std:g}, the unit of noise where codec.norm=none: vectors would outgrow "
                "it in a few steps, and no noise would hide them. Set codec.init_std=1."
            )


@builds(Embeddings)
class EmbeddingCodec(TableCodec):
    """Clean states are embeddings, learned or not.

    A normalised row has unit root mean square: L2-normalised, times sqrt(d) (`l2`: CDCD, section 3.3), or centred
    first, which is a layer norm (`layer`), and optionally followed by a learned gain and shift of each coordinate
    (`affine`: Difformer, section 3.3). There is no eps that a small initial table could fall below. Without
    normalisation, a learned table trained by cross-entropy grows until the task is trivial.

    The unit of noise must not change while the table learns: without normalisation it is fixed by `unit`, and the
    bound accounts for how far the table has grown or shrunk beside it.
    """

    def __init__(
        self, weight: Table, learned: bool = False, normalise: Normalisation = "none", unit: float | None = None
    ) -> None:
        super().__init__(weight, learned)
        self.normalise, self.unit = normalise, unit
        affine = normalise == "affine"
        self.gain = nn.Parameter(torch.ones(self.dim), requires_grad=learned) if affine else None
        self.shift = nn.Parameter(torch.zeros(self.dim), requires_grad=learned) if affine else None

    @classmethod
    def from_config(cls, part: Embeddings, *, vocab_size: int, **context: Any) -> EmbeddingCodec:
        """Random embeddings from torch's global generator."""
        unit = None if part.norm != "none" else math.sqrt(part.dim) * part.init_std
        weight = torch.randn(vocab_size, part.dim) * part.init_std
        return cls(weight, learned=part.learned, normalise=part.norm, unit=unit)

    @property
    def norm(self) -> float:
        """Root mean square norm of a clean state; of a state before training where training changes it."""
        if self.unit is not None:
            return self.unit
        return super().norm if self.normalise == "none" else math.sqrt(self.dim)

    def table(self) -> Table:
        rows = super().table()
        if self.normalise == "none":
            return rows
        if self.normalise != "l2":
            rows = rows - rows.mean(-1, keepdim=True)
        rows = F.normalize(rows, dim=-1) * math.sqrt(self.dim)
        return rows if self.gain is None or self.shift is None else rows * self.gain + self.shift


@dataclass(frozen=True)
class Bits(CodecConfig):
    """States are words of ceil(log2 V) bits, -scale or +scale: the digits of the id, their Gray code, or random."""

    code: Code = "base"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, scale=(1e-6, None))


@builds(Bits)
class BitCodec(TableCodec):
    """Clean states are code words of bits, -scale or +scale. Words that belong to no token are never decoded."""

    def __init__(self, weight: Table, scale: float) -> None:
        super().__init__(weight)
        self.bit = scale

    @classmethod
    def from_config(cls, part: Bits, *, vocab_size: int, **context: Any) -> BitCodec:
        """A code word for every token; `random` words come from torch's global generator."""
        return cls(bits(vocab_size, part.scale, part.code), part.scale)

    @property
    def norm(self) -> float:
        """The norm of every clean state."""
        return self.bit * math.sqrt(self.dim)


def bits(vocab_size: int, scale: float = 1.0, code: Code = "base") -> Table:
    """Analog bits: a code word of ceil(log2 V) bits for each id, as -scale / +scale (Chen et al. 2022, 2.1).

    The word is the binary digits of the id, most significant first; in `gray` code, where neighbours differ in one
    bit; or `random`, without repetition.
    """
    width = max(1, (vocab_size - 1).bit_length())
    number = torch.randperm(2**width)[:vocab_size] if code == "random" else torch.arange(vocab_size)
    if code == "gray":
        number = number ^ (number >> 1)
    digits = number[:, None] >> torch.arange(width - 1, -1, -1) & 1
    return (2.0 * digits - 1.0) * scale


@dataclass(frozen=True)
class Simplex(CodecConfig):
    """States are almost-one-hot logits, +scale and -scale: one number per token of the vocabulary."""

    scale: float = 5.0

    def __post_init__(self) -> None:
        check_bounds(self, scale=(1e-6, None))


@builds(Simplex)
class SimplexCodec(TableCodec):
    """Almost-one-hot logits, K at the token and -K elsewhere (SSD-LM, section 3.1), less the constant -K.

    The softmax ignores the constant and noise does not hide it, but a prior around 0 would have to pay for it. So a
    clean state is a corner of `height` 2 K, which is its norm.
    """

    def __init__(self, vocab_size: int, scale: float = 5.0) -> None:
        super().__init__(2.0 * scale * torch.eye(vocab_size))
        self.height = 2.0 * scale

    @property
    def norm(self) -> float:
        """The norm of every clean state."""
        return self.height
