"""Keys and values of earlier positions, so that they are computed only once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class KVCache:
    """Keys and values of the positions that a block has seen; every pass appends its own.

    `conv_inputs` are the last inputs of the block's Canon layers, which later positions mix in.
    """

    keys: Float[Tensor, "b h n e"] | None = None
    values: Float[Tensor, "b h n e"] | None = None
    conv_inputs: dict[int, Float[Tensor, "b r w"]] = field(default_factory=dict)

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

    def before(self, branch: int, x: Float[Tensor, "b l w"], radius: int) -> Float[Tensor, "b r w"]:
        """The inputs of a Canon layer at the `radius` positions before `x` (zeros where there are none)."""
        before = self.conv_inputs.get(branch, x.new_zeros(len(x), radius, x.shape[2]))
        self.conv_inputs[branch] = torch.cat((before, x), dim=1)[:, -radius:]
        return before

    def select(self, rows: Int[Tensor, " n"]) -> KVCache:
        """A new cache with these rows."""
        if self.keys is None or self.values is None:
            return KVCache()
        conv_inputs = {branch: inputs[rows] for branch, inputs in self.conv_inputs.items()}
        return KVCache(self.keys[rows], self.values[rows], conv_inputs)
