"""The transformer backbone: features in, features out, with or without a time input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.errors import UserError
from ..core.registry import builds, check_bounds
from ..core.types import AttentionMask, Hidden, NoiseTimes, PositionIds
from .attention import attend, rotary, rotate
from .backbone import BackboneConfig, Modulation
from .kv_cache import KVCache
from .layers import (
    HEAD_DIM,
    CanonConv,
    LayerNorm,
    Linear,
    TimeEmbedding,
    modulated,
    num_heads,
    sinusoids,
    visible_neighbours,
    zero_init,
)

Activation = Literal["relu2", "gelu"]


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


class Block(nn.Module):
    """Pre-norm attention and feed-forward; the residual branches start at zero."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, hidden_width, modulation = config.width, config.mlp_ratio * config.width, config.modulation
        self.heads, self.modulation, self.activation = num_heads(width), modulation, config.activation
        self.qk_norm, self.dropout, self.conv_radius = config.qk_norm, config.dropout, config.conv_radius
        canons = [CanonConv(width, config.conv_radius) for _ in range(2 if config.conv_radius else 0)]
        self.canon = nn.ModuleList(canons) if canons else None
        self.norm1 = LayerNorm(width, elementwise_affine=config.norm_weight, bias=config.norm_bias)
        self.norm2 = LayerNorm(width, elementwise_affine=config.norm_weight, bias=config.norm_bias)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = zero_init(Linear(width, width, bias=False))
        self.up = Linear(width, hidden_width, bias=config.bias)
        self.down = Linear(hidden_width, width, bias=config.bias)
        chunks = {"none": 0, "film": 4, "adaln": 6}[modulation]
        self.modulate = zero_init(Linear(config.cond_dim, chunks * width)) if chunks else None
        nn.init.zeros_(self.down.weight)
        if modulation == "adaln":  # zero gates already start the branches at zero
            nn.init.kaiming_uniform_(self.out.weight, a=math.sqrt(5))
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))

    def forward(
        self,
        x: Hidden,
        condition: Float[Tensor, "b #l c"] | None,
        cos_sin: Float[Tensor, "2 #b 1 l half"],
        mask: AttentionMask | None,
        cache: KVCache | None = None,
        visible: Bool[Tensor, "k #b l 1"] | None = None,
    ) -> Hidden:
        """`visible` is `visible_neighbours` of the mask, for Canon layers (None: all are)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulation(x, condition)
        hidden = self._canon(0, self.norm1(x) * scale1 + shift1, visible, cache)
        x = x + gate1 * self._drop(self._attend(hidden, cos_sin, mask, cache))
        hidden = self.up(self._canon(1, self.norm2(x) * scale2 + shift2, visible, cache))
        hidden = F.relu(hidden).square() if self.activation == "relu2" else F.gelu(hidden, approximate="tanh")
        return x + gate2 * self._drop(self.down(hidden))

    def _canon(self, branch: int, hidden: Tensor, visible: Tensor | None, cache: KVCache | None) -> Tensor:
        if self.canon is None:
            return hidden
        before = None if cache is None else cache.before(branch, hidden, self.conv_radius)
        return self.canon[branch](hidden, visible, before)

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

    def _attend(self, hidden: Tensor, cos_sin: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        q, k, v = self.qkv(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        q, k = rotate(q, cos_sin), rotate(k, cos_sin)
        if cache is not None:
            k, v = cache.append(k, v)
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


@builds(TransformerConfig)
class Transformer(nn.Module):
    """A stack of blocks with rotary positions; the mask decides which positions see which.

    Rotary positions are relative: if all tokens are masked, no position can be told from another, yet a model of lines
    must know which comes first. With `absolute_positions` a map of sinusoids, zero at the start, is added to the
    features. Features are computed in `compute_dtype`; parameters stay float32.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.width, self.conv_radius = config.width, config.conv_radius
        self.modulation: Modulation = config.modulation
        self.gradient_checkpointing, self.compute_dtype = config.gradient_checkpointing, torch.float32
        self.position_proj = zero_init(Linear(HEAD_DIM, self.width, bias=False)) if config.absolute_positions else None
        has_time = config.modulation != "none"
        self.time = TimeEmbedding(config.cond_dim, max_frequency=config.time_frequency) if has_time else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(self.width, elementwise_affine=config.norm_weight, bias=config.norm_bias)
        self.modulate = zero_init(Linear(config.cond_dim, 2 * self.width)) if has_time else None

    def forward(
        self,
        x: Hidden,
        noise_level: NoiseTimes | None,
        positions: PositionIds,
        mask: AttentionMask | None,
        caches: Sequence[KVCache] | None = None,
    ) -> Hidden:
        """`noise_level` is that of rows or positions (None without a time input).

        `caches` has one cache for each block, of earlier positions that the new ones may see too.
        """
        x = x.to(self.compute_dtype)
        if self.position_proj is not None:
            x = x + self.position_proj(sinusoids(positions.float(), HEAD_DIM).to(x.dtype))
        condition = None if self.time is None or noise_level is None else self.time(noise_level)
        cos_sin = rotary(positions, self.width // num_heads(self.width))
        visible = visible_neighbours(mask, self.conv_radius) if self.conv_radius and mask is not None else None
        for number, block in enumerate(self.blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, condition, cos_sin, mask, None, visible, use_reentrant=False)
            else:
                x = block(x, condition, cos_sin, mask, None if caches is None else caches[number], visible)
        return modulated(self.norm(x), self.modulate, condition)
