"""The transformer backbone: features in, features out, with or without a time input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.errors import UserError
from ..core.registry import builds, check_bounds
from .attention import attend, rotary, rotate
from .backbone import BackboneConfig, Modulation
from .layers import HEAD_DIM, CanonConv, LayerNorm, Linear, TimeEmbedding, num_heads, sinusoids, visible_neighbours

Activation = Literal["relu2", "gelu"]


@dataclass
class KVCache:
    """Keys and values of the positions that a block has seen; every pass appends its own."""

    keys: Float[Tensor, "b h n e"] | None = None
    values: Float[Tensor, "b h n e"] | None = None

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


class Block(nn.Module):
    """Pre-norm attention and feed-forward; the residual branches start at zero."""

    def __init__(
        self,
        width: int,
        mlp_ratio: int,
        cond_dim: int,
        modulation: Modulation,
        activation: Activation,
        qk_norm: bool,
        bias: bool,
        norm_weight: bool,
        norm_bias: bool,
        dropout: float,
        conv_radius: int = 0,
    ) -> None:
        super().__init__()
        self.canon = nn.ModuleList(CanonConv(width, conv_radius) for _ in range(2)) if conv_radius else None
        self.heads = num_heads(width)
        self.modulation, self.activation, self.qk_norm, self.dropout = modulation, activation, qk_norm, dropout
        self.norm1 = LayerNorm(width, elementwise_affine=norm_weight, bias=norm_bias)
        self.norm2 = LayerNorm(width, elementwise_affine=norm_weight, bias=norm_bias)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.up = Linear(width, mlp_ratio * width, bias=bias)
        self.down = Linear(mlp_ratio * width, width, bias=bias)
        chunks = {"none": 0, "film": 4, "adaln": 6}[modulation]
        self.modulate = Linear(cond_dim, chunks * width) if chunks else None
        for weight in (self.out.weight, self.down.weight, *(self.modulate.parameters() if self.modulate else ())):
            nn.init.zeros_(weight)
        if modulation == "adaln":  # zero gates already start the branches at zero
            nn.init.kaiming_uniform_(self.out.weight, a=math.sqrt(5))
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        condition: Float[Tensor, "b #l c"] | None,
        rotary: Float[Tensor, "2 #b 1 l half"],
        mask: Bool[Tensor, "#b 1 l n"] | None,
        cache: KVCache | None = None,
        visible: Bool[Tensor, "k #b l 1"] | None = None,
    ) -> Float[Tensor, "b l w"]:
        """`visible` is `visible_neighbours` of the mask, for Canon layers (None: all are)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulation(x, condition)
        hidden = self._canon(0, self.norm1(x) * scale1 + shift1, visible)
        x = x + gate1 * self._drop(self._attend(hidden, rotary, mask, cache))
        hidden = self.up(self._canon(1, self.norm2(x) * scale2 + shift2, visible))
        hidden = F.relu(hidden).square() if self.activation == "relu2" else F.gelu(hidden, approximate="tanh")
        return x + gate2 * self._drop(self.down(hidden))

    def _canon(self, branch: int, hidden: Tensor, visible: Tensor | None) -> Tensor:
        return hidden if self.canon is None else self.canon[branch](hidden, visible)

    def _modulation(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor | float, ...]:
        """Shift, scale and gate of both branches; FiLM has no gate. Neutral at the start, except for the zero gates."""
        if self.modulate is None or condition is None:
            return 0.0, 1.0, 1.0, 0.0, 1.0, 1.0
        values = self.modulate(condition.to(x.dtype))
        if self.modulation == "film":
            shift1, scale1, shift2, scale2 = values.chunk(4, dim=-1)
            return shift1, 1.0 + scale1, 1.0, shift2, 1.0 + scale2, 1.0
        shift1, scale1, gate1, shift2, scale2, gate2 = values.chunk(6, dim=-1)
        return shift1, 1.0 + scale1, gate1, shift2, 1.0 + scale2, gate2

    def _attend(self, hidden: Tensor, rotary: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        q, k, v = self.qkv(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        q, k = rotate(q, rotary), rotate(k, rotary)
        if cache is not None:
            k, v = cache.append(k, v)
        mixed = attend(q, k, v, mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


@dataclass(frozen=True)
class TransformerConfig(BackboneConfig):
    """The transformer. Heads are 64 wide."""

    mlp_ratio: int = 4
    cond_dim: int = 128
    modulation: Literal["none", "adaln", "film"] = "none"
    activation: Activation = "relu2"
    qk_norm: bool = True
    bias: bool = False
    """Biases of the feed-forward's linear maps."""
    norm_weight: bool = False
    norm_bias: bool = False
    time_frequency: float = 1000.0
    """Frequency of the fastest sinusoid of the noise level, in radians per unit of it."""
    dropout: float = 0.0
    absolute_positions: bool = True
    conv_radius: int = 0
    """Positions to either side whose features each branch of a block first mixes in (0: none; see CanonConv)."""
    gradient_checkpointing: bool = False
    """Recompute the activations inside blocks in the backward pass: a third more compute for less memory."""

    def __post_init__(self) -> None:
        check_bounds(self, depth=(1, None), mlp_ratio=(1, None), cond_dim=(1, None), dropout=(0.0, 0.99))
        check_bounds(self, time_frequency=(1e-6, None), conv_radius=(0, None))
        if self.norm_bias and not self.norm_weight:
            raise UserError("backbone.norm_bias has no effect without backbone.norm_weight; set both.")
        if self.width < 2 or self.width % (64 if self.width > 64 else 2):
            raise UserError(f"backbone.width is {self.width}; it must be a multiple of 64, or even and below 64.")


@builds(TransformerConfig)
class Transformer(nn.Module):
    """A stack of blocks with rotary positions; the mask decides which positions see which.

    Rotary positions are relative: if all tokens are masked, no position can be told from another, yet a model of lines
    must know which comes first. With `absolute_positions` a map of sinusoids, zero at the start, is added to the
    features. Features are computed in `compute_dtype`; parameters stay float32.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        mlp_ratio: int = 4,
        cond_dim: int = 0,
        modulation: Modulation = "none",
        activation: Activation = "relu2",
        qk_norm: bool = True,
        bias: bool = False,
        norm_weight: bool = False,
        norm_bias: bool = False,
        time_frequency: float = 1000.0,
        dropout: float = 0.0,
        absolute_positions: bool = True,
        conv_radius: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.position_proj = Linear(HEAD_DIM, width, bias=False) if absolute_positions else None
        if self.position_proj is not None:
            nn.init.zeros_(self.position_proj.weight)
        self.width, self.modulation, self.conv_radius = width, modulation, conv_radius
        self.gradient_checkpointing = gradient_checkpointing
        self.compute_dtype = torch.float32
        self.time = TimeEmbedding(cond_dim, max_frequency=time_frequency) if modulation != "none" else None
        self.blocks = nn.ModuleList(
            Block(
                width,
                mlp_ratio,
                cond_dim,
                modulation,
                activation,
                qk_norm,
                bias,
                norm_weight,
                norm_bias,
                dropout,
                conv_radius,
            )
            for _ in range(depth)
        )
        self.norm = LayerNorm(width, elementwise_affine=norm_weight, bias=norm_bias)
        self.modulate = Linear(cond_dim, 2 * width) if modulation != "none" else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        noise_level: Float[Tensor, "b *l"] | None,
        positions: Int[Tensor, "#b l"],
        mask: Bool[Tensor, "#b 1 l n"] | None,
        caches: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "b l w"]:
        """`noise_level` is that of rows or positions (None without a time input).

        `caches` has one cache for each block, of earlier positions that the new ones may see too.
        """
        x = x.to(self.compute_dtype)
        if self.position_proj is not None:
            x = x + self.position_proj(sinusoids(positions.float(), HEAD_DIM).to(x.dtype))
        condition = None
        if self.time is not None and noise_level is not None:
            condition = self.time(noise_level if noise_level.ndim == 2 else noise_level[:, None])
        angles = rotary(positions, self.width // num_heads(self.width))
        visible = visible_neighbours(mask, self.conv_radius) if self.conv_radius and mask is not None else None
        for number, block in enumerate(self.blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, condition, angles, mask, None, visible, use_reentrant=False)
            else:
                x = block(x, condition, angles, mask, None if caches is None else caches[number], visible)
        x = self.norm(x)
        if self.modulate is not None and condition is not None:
            shift, scale = self.modulate(condition.to(x.dtype)).chunk(2, dim=-1)
            x = x * (1.0 + scale) + shift
        return x
