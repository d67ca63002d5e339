"""Stateless randomness: every draw is a hash of (seed, stream, step, row, position).

There is no generator object and no global state, except torch's own for initial weights and dropout (`seeded`).
Resuming needs only the step number, and a row draws the same numbers in every batch, process and device.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import erf, pi, prod, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .errors import UserError
from .types import Mask, RowIndex, Scalar

MAX_SEED = 2**64 - 1

_MASK = 0xFFFFFFFF
_GOLDEN = 0x61C88647  # below 2^31, like every multiplier here: 32-bit values times it never overflow int64


def check_seed(seed: int, name: str = "seed") -> int:
    """The seed. Raises UserError for one whose stream would be that of another seed."""
    if not 0 <= seed <= MAX_SEED:
        value = str(seed) if abs(seed) < 10**30 else "a number of more than 30 digits"
        raise UserError(f"{name} is {value}; it must be from 0 to 2**64 - 1.")
    return seed


def mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A bijective avalanche of 32-bit values held in int64 (two xor-shift-multiply rounds)."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


@dataclass(frozen=True)
class Rng:
    """A key, or one for each row, and row numbers: from the same key, row `row_ids[i]` draws the same in any batch."""

    key: Int[Tensor, "..."]
    row_ids: RowIndex

    @classmethod
    def of(cls, seed: int | Sequence[int], rows: int | RowIndex, device: torch.device | str | None = None) -> Rng:
        """The root stream of `seed`, one for all or one for each row, for `rows` (a count n means rows 0 to n - 1)."""
        numbers = torch.arange(rows, device=device) if isinstance(rows, int) else rows
        seeds = [seed] if isinstance(seed, int) else seed
        low, high = (torch.tensor([each >> bits & _MASK for each in seeds], device=numbers.device) for bits in (0, 32))
        key = mix(low ^ mix(high))
        return cls(key[0] if isinstance(seed, int) else key, numbers)

    def fork(self, name: str | int) -> Rng:
        """An independent stream, by name or by step number."""
        word = zlib.crc32(name.encode()) if isinstance(name, str) else (name ^ (name >> 32)) & _MASK
        return Rng(mix((self.key * _GOLDEN + word + 1) & _MASK), self.row_ids)

    def select(self, index: Tensor | slice) -> Rng:
        """The same stream for some of the rows (a boolean mask, row indices or a slice)."""
        return Rng(self.key[index] if self.key.ndim else self.key, self.row_ids[index])

    def random_uint32(self, *shape: int) -> Int[Tensor, "b *shape"]:
        """Uniform 32-bit integers (as int64); within a row, a number depends on its flattened position."""
        rows = self.row_ids & _MASK
        first = mix((self.key + rows * _GOLDEN) & _MASK)[:, None]
        second = mix(self.key ^ mix(rows ^ 0x5BD1E995))[:, None]
        counter = torch.arange(prod(shape), device=rows.device)
        return mix((mix(counter ^ first) + second) & _MASK).view(-1, *shape)

    def uniform(self, *shape: int) -> Float[Tensor, "b *shape"]:
        """Uniforms strictly inside (0, 1): odd multiples of 2^-24, exact in float32."""
        return ((self.random_uint32(*shape) >> 9).float() + 0.5) * 2.0**-23

    def shared_uniform(self) -> Scalar:
        """One uniform for the global batch, independent of the rows; they must share a key."""
        return ((mix(self.key ^ 0x2545F491) >> 9).float() + 0.5) * 2.0**-23

    def normal(self, *shape: int) -> Float[Tensor, "b *shape"]:
        """Standard normals, by the Box-Muller transform of neighbouring pairs."""
        count = prod(shape)
        u = self.uniform((count + 1) // 2, 2)
        radius, angle = torch.sqrt(-2.0 * torch.log(u[..., 0])), (2.0 * pi) * u[..., 1]
        pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
        return pairs.flatten(1)[:, :count].view(-1, *shape)

    def truncated_normal(self, limit: float, *shape: int) -> Float[Tensor, "b *shape"]:
        """Standard normals truncated to [-limit, limit], by the inverse distribution function."""
        return sqrt(2.0) * torch.erfinv((2.0 * self.uniform(*shape) - 1.0) * erf(limit / sqrt(2.0)))

    def categorical(self, weights: Float[Tensor, "b *shape v"]) -> Int[Tensor, "b *shape"]:
        """One index per position, with probability proportional to `weights`."""
        return _choose(weights, self.random_uint32(*weights.shape[1:-1], 2))

    def random_subset(self, where: Mask, count: int | Float[Tensor, "b 1"]) -> Mask:
        """A random subset of `count` of the positions `where` in each row, or all where there are fewer."""
        rank = self.uniform(where.shape[1]).masked_fill(~where, 2.0).argsort(-1).argsort(-1)
        return where & (rank < count)

    def categorical_at(self, where: Mask, weights: Float[Tensor, "n v"]) -> Int[Tensor, " n"]:
        """The draws of `categorical` at the `n` positions `where`, from the weights at these positions alone."""
        return _choose(weights, self.random_uint32(where.shape[1], 2)[where])


def _choose(weights: Float[Tensor, "*shape v"], bits: Int[Tensor, "*shape 2"]) -> Int[Tensor, "*shape"]:
    """Inverse of the cumulative sum at a uniform of 53 bits, in float64 where the device has it.

    Rare events keep their probability; a Gumbel race in float32 under-selects tokens of small probability.
    """
    wide = torch.float32 if weights.device.type == "mps" else torch.float64
    bits = bits.to(wide)
    u = (bits[..., 0] + (bits[..., 1] + 0.5) * 2.0**-32) * 2.0**-32
    cumulative = weights.to(wide).cumsum(-1)
    index = torch.searchsorted(cumulative, (u * cumulative[..., -1])[..., None], right=True)[..., 0]
    # A product rounded up to the last sum would fall past the last token that has any weight.
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).float().argmax(-1)
    return torch.minimum(index, last)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generator, which initialisation and dropout use, in the block, and restores it after."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
