"""A one-dimensional U-Net trunk: convolutions at ever coarser resolution, attention at the coarsest, and back."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .attention import rotary
from .backbone import Modulation
from .transformer import HEAD_DIM, Block, LayerNorm, Linear, TimeEmbedding, heads, sinusoids


class Convolution(Linear):
    """A map of every position and its two neighbours, zeros beyond the ends.

    As one matrix it is cast, compiled and updated by Muon like those of the transformer.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(3 * inputs, outputs)

    def forward(self, input: Float[Tensor, "b l n"]) -> Float[Tensor, "b l m"]:
        wide = F.pad(input, (0, 0, 1, 1))
        return super().forward(torch.cat((wide[:, :-2], wide[:, 1:-1], wide[:, 2:]), dim=-1))


class ConvolutionBlock(nn.Module):
    """Two convolutions around a modulated norm; the residual branch starts at zero.

    Norms are over the features of a position, so that nothing is learned of padding by way of statistics.
    """

    def __init__(self, inputs: int, outputs: int, conditioning: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(inputs, elementwise_affine=False)
        self.norm2 = LayerNorm(outputs, elementwise_affine=False)
        self.first, self.second = Convolution(inputs, outputs), Convolution(outputs, outputs)
        self.past = Linear(inputs, outputs, bias=False) if inputs != outputs else nn.Identity()
        self.modulate = Linear(conditioning, 2 * outputs) if conditioning else None
        for parameter in (*self.second.parameters(), *(self.modulate.parameters() if self.modulate else ())):
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "b l n"],
        condition: Float[Tensor, "b #l c"] | None,
        real: Float[Tensor, "#b l 1"] | None,
    ) -> Float[Tensor, "b l m"]:
        h = self.norm2(self.first(_real(F.silu(self.norm1(x)), real)))
        if self.modulate is not None and condition is not None:
            shift, scale = self.modulate(condition.to(h.dtype)).chunk(2, dim=-1)
            h = h * (1.0 + scale) + shift
        return self.past(x) + self.second(_real(F.silu(h), real))


class UNet(nn.Module):
    """Every level has half the positions of the one before and `multipliers` times `width` features.

    `depth` blocks lead down, spread over the levels, and as many lead up, each of which also sees what its counterpart
    left. Pairs of positions are joined and split by linear maps. A transformer block at the coarsest level lets all
    positions see each other. Rows of any length are filled up inside. Positions that not everybody may look at are
    taken for padding, so that nothing is seen through a mask; packed rows and orders need a transformer.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        multipliers: tuple[int, ...],
        cond_dim: int,
        modulation: Literal["none", "film"],
        time_frequency: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.modulation: Modulation = modulation
        self.compute_dtype = torch.float32
        self.place = Linear(HEAD_DIM, width, bias=False)
        nn.init.zeros_(self.place.weight)
        timed = cond_dim if modulation != "none" else 0
        self.time = TimeEmbedding(cond_dim, fastest=time_frequency) if timed else None
        sizes, levels = [m * width for m in multipliers], len(multipliers)
        self.counts = [(depth + levels - 1 - i) // levels for i in range(levels)]
        down = [ConvolutionBlock(c, c, timed) for c, n in zip(sizes, self.counts, strict=True) for _ in range(n)]
        up = [ConvolutionBlock(2 * c, c, timed) for c, n in zip(sizes, self.counts, strict=True) for _ in range(n)]
        middle = Block(
            sizes[-1],
            mlp_ratio=4,
            cond_dim=cond_dim,
            modulation=modulation,
            activation="relu2",
            qk_norm=True,
            bias=False,
            norm_weight=False,
            norm_bias=False,
            dropout=0.0,
        )
        self.blocks = nn.ModuleList((*down, middle, *reversed(up)))
        pairs = list(pairwise(sizes))
        self.join = nn.ModuleList(Linear(2 * fine, coarse) for fine, coarse in pairs)
        self.split = nn.ModuleList(Linear(coarse, 2 * fine) for fine, coarse in pairs)
        self.norm = LayerNorm(width, elementwise_affine=False)
        self.modulate = Linear(cond_dim, 2 * width) if timed else None
        for parameter in self.modulate.parameters() if self.modulate else ():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        level: Float[Tensor, "b *l"] | None,
        at: Int[Tensor, "#b l"],
        mask: Bool[Tensor, "#b 1 l l"] | None,
    ) -> Float[Tensor, "b l w"]:
        """`level` is the noise level of rows or positions (None without a time input), `at` the position numbers."""
        x = x.to(self.compute_dtype)
        x = x + self.place(sinusoids(at.float(), HEAD_DIM).to(x.dtype))
        condition = None
        if self.time is not None and level is not None:
            condition = self.time(level if level.ndim == 2 else level[:, None])
        h, condition, real = self._filled(x, condition, None if mask is None else mask[:, 0].all(-2)[..., None])
        grids, kept, blocks = [(condition, real)], [], iter(self.blocks)
        for i, count in enumerate(self.counts):
            if i:
                h = self.join[i - 1](_real(h, real).unflatten(1, (-1, 2)).flatten(2))
                condition, real = _coarser(condition, real)
                grids.append((condition, real))
            for _ in range(count):
                h = next(blocks)(h, condition, real)
                kept.append(h)
        turn = rotary(torch.arange(h.shape[1], device=h.device)[None], h.shape[2] // heads(h.shape[2]))
        h = next(blocks)(h, condition, turn, None if real is None else _seen(real))
        for i in reversed(range(len(self.counts))):
            for _ in range(self.counts[i]):
                h = next(blocks)(torch.cat((h, kept.pop()), dim=-1), *grids[i])
            if i:
                h = self.split[i - 1](h).unflatten(-1, (2, -1)).flatten(1, 2)
        h = self.norm(h[:, : x.shape[1]])
        if self.modulate is not None and grids[0][0] is not None:
            shift, scale = self.modulate(grids[0][0][:, : x.shape[1]].to(h.dtype)).chunk(2, dim=-1)
            h = h * (1.0 + scale) + shift
        return h

    def _filled(
        self, x: Tensor, condition: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """All of it at a length that can be halved once for each level."""
        missing = -x.shape[1] % 2 ** len(self.join)
        if not missing:
            return x, condition, None if real is None else real.to(x.dtype)
        real = x.new_ones(1, x.shape[1], 1) if real is None else real.to(x.dtype)
        if condition is not None and condition.shape[1] > 1:
            condition = F.pad(condition, (0, 0, 0, missing))
        return F.pad(x, (0, 0, 0, missing)), condition, F.pad(real, (0, 0, 0, missing))


def _real(x: Float[Tensor, "b l n"], real: Float[Tensor, "#b l 1"] | None) -> Float[Tensor, "b l n"]:
    return x if real is None else x * real


def _seen(real: Float[Tensor, "b l 1"]) -> Bool[Tensor, "b 1 l l"]:
    """Real positions, and each position itself: a row of nothing but padding would be softmax over nothing."""
    return (real[:, None, :, 0] > 0)[:, None] | torch.eye(real.shape[1], dtype=torch.bool, device=real.device)


def _coarser(condition: Tensor | None, real: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Levels of noise and what is real for pairs of positions: the mean of the real ones, and whether any is."""
    pairs = None if real is None else real.unflatten(1, (-1, 2))
    if condition is not None and condition.shape[1] > 1:
        weight = torch.ones_like(condition[..., :1]) if real is None else real.to(condition.dtype)
        total = weight.unflatten(1, (-1, 2)).sum(2).clamp(min=1.0)
        condition = (condition * weight).unflatten(1, (-1, 2)).sum(2) / total
    return condition, None if pairs is None else pairs.amax(2)
