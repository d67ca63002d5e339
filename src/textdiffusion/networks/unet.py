"""A one-dimensional U-Net backbone: convolutions at ever coarser resolution, attention at the coarsest, and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.registry import builds, check_bounds
from ..core.types import AttentionMask, Hidden, NoiseTimes, PositionIds
from .attention import rotary
from .backbone import BackboneConfig, Modulation
from .layers import HEAD_DIM, LayerNorm, Linear, TimeEmbedding, modulated, num_heads, sinusoids, zero_init
from .transformer import Block, TransformerConfig


class Convolution(Linear):
    """A convolution of width 3 over positions, with zeros beyond the ends.

    It is one matrix, so it is cast, compiled and updated by Muon as the transformer's matrices are.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(3 * inputs, outputs)

    def forward(self, input: Float[Tensor, "b l n"]) -> Float[Tensor, "b l m"]:
        padded = F.pad(input, (0, 0, 1, 1))
        return super().forward(torch.cat((padded[:, :-2], padded[:, 1:-1], padded[:, 2:]), dim=-1))


class ConvolutionBlock(nn.Module):
    """Two convolutions around a modulated norm; the residual branch starts at zero.

    Norms are over the features of one position, so that statistics do not depend on padding.
    """

    def __init__(self, inputs: int, outputs: int, cond_dim: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(inputs, elementwise_affine=False)
        self.norm2 = LayerNorm(outputs, elementwise_affine=False)
        self.conv1, self.conv2 = Convolution(inputs, outputs), Convolution(outputs, outputs)
        self.shortcut = Linear(inputs, outputs, bias=False) if inputs != outputs else nn.Identity()
        self.modulate = zero_init(Linear(cond_dim, 2 * outputs)) if cond_dim else None
        zero_init(self.conv2)

    def forward(
        self,
        x: Float[Tensor, "b l n"],
        condition: Float[Tensor, "b #l c"] | None,
        valid: Float[Tensor, "#b l 1"] | None,
    ) -> Float[Tensor, "b l m"]:
        hidden = self.norm2(self.conv1(_masked(F.silu(self.norm1(x)), valid)))
        hidden = modulated(hidden, self.modulate, condition)
        return self.shortcut(x) + self.conv2(_masked(F.silu(hidden), valid))


@dataclass(frozen=True)
class UNetConfig(BackboneConfig, name="unet"):
    """The one-dimensional U-Net. Level i has `multipliers[i]` times `width` features and 2^i times fewer positions.

    `depth` blocks lead down and as many up. Width 64 has 1.1 million parameters, 128 has 4.1, 256 at depth 6 has 25;
    multipliers 1,2,4 at width 256 and depth 9 have 92.
    """

    supports_packing: ClassVar[bool] = False

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    cond_dim: int = 32
    modulation: Literal["none", "film"] = "film"
    time_frequency: float = 1000.0

    def __post_init__(self) -> None:
        check_bounds(self, depth=(1, None), cond_dim=(1, None), time_frequency=(1e-6, None))
        if not self.multipliers or min(self.multipliers) < 1:
            raise UserError(
                f"backbone.multipliers is {list(self.multipliers)}; it must have one number of at least 1 per level."
            )
        deepest = self.width * self.multipliers[-1]
        if self.width < 2 or deepest % (64 if deepest > 64 else 2):
            raise UserError(
                f"backbone.width is {self.width}; {self.multipliers[-1]} (the last multiplier) times that must be a "
                "multiple of 64, or even and below 64."
            )


@builds(UNetConfig)
class UNet(nn.Module):
    """Every level has half the positions of the level above and `multipliers` times `width` features.

    `depth` blocks lead down, spread over the levels, and as many lead up, each of which also reads the output of its
    counterpart. Linear maps join and split pairs of positions. A transformer block at the coarsest level lets all
    positions see each other. Rows are padded to a length that can be halved. A position that some query may not see
    counts as padding, so nothing is seen through a mask; packed rows and causal orders need a transformer.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.width, self.compute_dtype = config.width, torch.float32
        self.modulation: Modulation = config.modulation
        width, depth, multipliers, cond_dim = config.width, config.depth, config.multipliers, config.cond_dim
        self.position_proj = zero_init(Linear(HEAD_DIM, width, bias=False))
        time_dim = cond_dim if config.modulation != "none" else 0
        self.time = TimeEmbedding(cond_dim, max_frequency=config.time_frequency) if time_dim else None
        sizes, levels = [m * width for m in multipliers], len(multipliers)
        self.counts = [(depth + levels - 1 - i) // levels for i in range(levels)]
        down = [ConvolutionBlock(c, c, time_dim) for c, n in zip(sizes, self.counts, strict=True) for _ in range(n)]
        up = [ConvolutionBlock(2 * c, c, time_dim) for c, n in zip(sizes, self.counts, strict=True) for _ in range(n)]
        middle = Block(TransformerConfig(sizes[-1], 1, cond_dim=cond_dim, modulation=config.modulation))
        self.blocks = nn.ModuleList((*down, middle, *reversed(up)))
        pairs = list(pairwise(sizes))
        self.downsample = nn.ModuleList(Linear(2 * fine, coarse) for fine, coarse in pairs)
        self.upsample = nn.ModuleList(Linear(coarse, 2 * fine) for fine, coarse in pairs)
        self.norm = LayerNorm(width, elementwise_affine=False)
        self.modulate = zero_init(Linear(cond_dim, 2 * width)) if time_dim else None

    def forward(
        self, x: Hidden, noise_level: NoiseTimes | None, positions: PositionIds, mask: AttentionMask | None
    ) -> Hidden:
        """`noise_level` is that of rows or positions (None without a time input)."""
        x = x.to(self.compute_dtype)
        x = x + self.position_proj(sinusoids(positions.float(), HEAD_DIM).to(x.dtype))
        condition = None if self.time is None or noise_level is None else self.time(noise_level)
        hidden, condition, valid = self._padded(x, condition, None if mask is None else mask[:, 0].all(-2)[..., None])
        levels, skips, blocks = [(condition, valid)], [], iter(self.blocks)
        for i, count in enumerate(self.counts):
            if i:
                hidden = self.downsample[i - 1](_masked(hidden, valid).unflatten(1, (-1, 2)).flatten(2))
                condition, valid = _coarser(condition, valid)
                levels.append((condition, valid))
            for _ in range(count):
                hidden = next(blocks)(hidden, condition, valid)
                skips.append(hidden)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        cos_sin = rotary(positions, hidden.shape[2] // num_heads(hidden.shape[2]))
        hidden = next(blocks)(hidden, condition, cos_sin, None if valid is None else _attention_mask(valid))
        for i in reversed(range(len(self.counts))):
            for _ in range(self.counts[i]):
                hidden = next(blocks)(torch.cat((hidden, skips.pop()), dim=-1), *levels[i])
            if i:
                hidden = self.upsample[i - 1](hidden).unflatten(-1, (2, -1)).flatten(1, 2)
        condition = None if levels[0][0] is None else levels[0][0][:, : x.shape[1]]
        return modulated(self.norm(hidden[:, : x.shape[1]]), self.modulate, condition)

    def _padded(
        self, x: Tensor, condition: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """All three at a length that can be halved once for each level below the first."""
        missing = -x.shape[1] % 2 ** len(self.downsample)
        if not missing:
            return x, condition, None if valid is None else valid.to(x.dtype)
        valid = x.new_ones(1, x.shape[1], 1) if valid is None else valid.to(x.dtype)
        if condition is not None and condition.shape[1] > 1:
            condition = F.pad(condition, (0, 0, 0, missing))
        return F.pad(x, (0, 0, 0, missing)), condition, F.pad(valid, (0, 0, 0, missing))


def _masked(x: Float[Tensor, "b l n"], valid: Float[Tensor, "#b l 1"] | None) -> Float[Tensor, "b l n"]:
    return x if valid is None else x * valid


def _attention_mask(valid: Float[Tensor, "b l 1"]) -> Bool[Tensor, "b 1 l l"]:
    """Valid positions, and each position itself: a row of nothing but padding would be softmax over nothing."""
    return (valid[:, None, :, 0] > 0)[:, None] | torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)


def _coarser(condition: Tensor | None, valid: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Conditioning and validity of pairs of positions: the mean over the valid ones, and whether either is valid."""
    pairs = None if valid is None else valid.unflatten(1, (-1, 2))
    if condition is not None and condition.shape[1] > 1:
        weight = torch.ones_like(condition[..., :1]) if valid is None else valid.to(condition.dtype)
        total = weight.unflatten(1, (-1, 2)).sum(2).clamp(min=1.0)
        condition = (condition * weight).unflatten(1, (-1, 2)).sum(2) / total
    return condition, None if pairs is None else pairs.amax(2)
