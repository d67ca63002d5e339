"""Keys and values of earlier positions, so that they are computed only once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class KVCache:
    """Keys and values of the positions that a block has seen; every pass appends its own."""

    keys: Float[Tensor, "b h n e"] | None = None
    values: Float[Tensor, "b h n e"] | None = None

    @property
    def length(self) -> int:
        """Number of positions."""
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, k: Float[Tensor, "b h l e"], v: Float[Tensor, "b h l e"]) -> tuple[Tensor, Tensor]:
        """All keys and values, with `k` and `v` at the end."""
        if self.keys is not None and self.values is not None:
            k, v = torch.cat((self.keys, k), dim=2), torch.cat((self.values, v), dim=2)
        self.keys, self.values = k, v
        return k, v

    def select(self, rows: Int[Tensor, " n"]) -> KVCache:
        """A new cache with these rows."""
        if self.keys is None or self.values is None:
            return KVCache()
        return KVCache(self.keys[rows], self.values[rows])
