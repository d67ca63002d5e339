"""The transformer trunk: features in, features out, with or without a time input."""

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

from .attention import attend, rotary, rotate
from .backbone import Modulation

HEAD_DIM = 64  # the width at which both CPU and GPU matrix units are well fed

Activation = Literal["relu2", "gelu"]


def heads(width: int) -> int:
    """Attention heads of a trunk: one for every 64 features."""
    return max(1, width // HEAD_DIM)


class Linear(nn.Linear):
    """A linear map whose float32 weights are cast to the dtype of its input: the compute dtype is the features' own."""

    def forward(self, input: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """A layer norm whose float32 weights are cast to the dtype of its input."""

    def forward(self, input: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        weight, bias = (None if p is None else p.to(input.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def sinusoids(x: Float[Tensor, "*b"], features: int) -> Float[Tensor, "*b f"]:
    """Cosines and sines of `x` at frequencies log-spaced from 1 down to 1 / 10000."""
    steps = torch.arange(features // 2, device=x.device) / (features // 2)
    angles = x[..., None] * torch.exp(-math.log(10000.0) * steps)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """A scalar noise level to a conditioning vector: sinusoids, then a two-layer perceptron."""

    def __init__(self, width: int, features: int = 256, fastest: float = 1000.0) -> None:
        super().__init__()
        self.features, self.fastest = features, fastest
        self.mlp = nn.Sequential(Linear(features, width), nn.SiLU(), Linear(width, width))

    def forward(self, level: Float[Tensor, "*b"]) -> Float[Tensor, "*b c"]:
        """`level` of order 1; frequencies are log-spaced from `fastest` / 10000 to `fastest` radians per unit."""
        return F.silu(self.mlp(sinusoids(level.float() * self.fastest, self.features)))


@dataclass
class KVCache:
    """Keys and values of the positions a block of the trunk has seen; a pass adds its own."""

    keys: Float[Tensor, "b h n e"] | None = None
    values: Float[Tensor, "b h n e"] | None = None

    def append(self, k: Float[Tensor, "b h l e"], v: Float[Tensor, "b h l e"]) -> tuple[Tensor, Tensor]:
        """What was seen before, then `k` and `v`."""
        if self.keys is not None and self.values is not None:
            k, v = torch.cat((self.keys, k), dim=2), torch.cat((self.values, v), dim=2)
        self.keys, self.values = k, v
        return k, v

    def select(self, rows: Int[Tensor, " n"]) -> KVCache:
        """Some of the rows, in a memory of their own."""
        if self.keys is None or self.values is None:
            return KVCache()
        return KVCache(self.keys[rows], self.values[rows])


class CanonConv(nn.Module):
    """Each feature plus a weighted sum of itself at up to `reach` places away: a depthwise convolution, from zero on.

    Only what attention may look at is summed ("Canon layers", Allen-Zhu 2025). Few heads cannot tell many near places
    apart, and without this a small network spends its training on fetching the letters around (docs/experiments.md).
    """

    def __init__(self, width: int, radius: int) -> None:
        super().__init__()
        self.reach = radius
        self.weight = nn.Parameter(torch.zeros(width, 1, 1, 2 * radius + 1))

    def forward(self, x: Float[Tensor, "b l w"], seen: Bool[Tensor, "k #b l 1"] | None) -> Float[Tensor, "b l w"]:
        """`seen` is what `visible` says of the attention's mask (None: all is)."""
        weight = self.weight.to(x.dtype)
        if seen is None and not torch.compiler.is_compiling():
            # On a CPU twice as fast in two dimensions, one of them 1, as in one. Compiled, the sum below is faster yet.
            near = F.conv2d(x.mT[:, :, None], weight, padding=(0, self.reach), groups=len(weight))
            return x + near[:, :, 0].mT
        length, total = x.shape[1], x
        padded = F.pad(x, (0, 0, self.reach, self.reach))
        for tap, scale in enumerate(weight[:, 0, 0].unbind(-1)):
            shifted = padded[:, tap : tap + length]
            total = total + scale * (shifted if seen is None else shifted * seen[tap])
        return total


def visible(mask: Bool[Tensor, "#b 1 l l"], reach: int) -> Bool[Tensor, "k #b l 1"]:
    """Whether a position may look at its neighbour, for each of the 2 `reach` + 1 places from left to right."""
    length, seen = mask.shape[-1], []
    for place in range(-reach, reach + 1):
        offset = max(-length, min(place, length))
        diagonal = mask[:, 0].diagonal(offset, 1, 2)
        seen.append(F.pad(diagonal, (max(0, -offset), max(0, offset))))
    return torch.stack(seen)[..., None]


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
        self.near = nn.ModuleList(CanonConv(width, conv_radius) for _ in range(2)) if conv_radius else None
        self.heads = heads(width)
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
        turn: Float[Tensor, "2 #b 1 l half"],
        mask: Bool[Tensor, "#b 1 l n"] | None,
        past: KVCache | None = None,
        seen: Bool[Tensor, "k #b l 1"] | None = None,
    ) -> Float[Tensor, "b l w"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulation(x, condition)
        h = self._mixed(0, self.norm1(x) * scale1 + shift1, seen)
        x = x + gate1 * self._drop(self._attend(h, turn, mask, past))
        h = self.up(self._mixed(1, self.norm2(x) * scale2 + shift2, seen))
        h = F.relu(h).square() if self.activation == "relu2" else F.gelu(h, approximate="tanh")
        return x + gate2 * self._drop(self.down(h))

    def _mixed(self, branch: int, h: Tensor, seen: Tensor | None) -> Tensor:
        return h if self.near is None else self.near[branch](h, seen)

    def _modulation(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor | float, ...]:
        """Shift, scale and gate of the two branches; FiLM has no gate. Neutral at the start, but for the zero gates."""
        if self.modulate is None or condition is None:
            return 0.0, 1.0, 1.0, 0.0, 1.0, 1.0
        values = self.modulate(condition.to(x.dtype))
        if self.modulation == "film":
            s1, c1, s2, c2 = values.chunk(4, dim=-1)
            return s1, 1.0 + c1, 1.0, s2, 1.0 + c2, 1.0
        s1, c1, g1, s2, c2, g2 = values.chunk(6, dim=-1)
        return s1, 1.0 + c1, g1, s2, 1.0 + c2, g2

    def _attend(self, h: Tensor, turn: Tensor, mask: Tensor | None, past: KVCache | None) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        q, k = rotate(q, turn), rotate(k, turn)
        if past is not None:
            k, v = past.append(k, v)
        mixed = attend(q, k, v, mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Transformer(nn.Module):
    """A stack of blocks with rotary positions; attention as the mask says.

    Rotary positions are relative. Where everything is masked they tell no position from another, and a model of lines
    must know the first: so `absolute` positions are added to the features too, from zero on.

    Features are computed in `compute_dtype` (parameters stay float32). `recompute` trades a third more compute for the
    memory of the activations inside blocks (gradient checkpointing).
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
        self.width, self.modulation, self.conv_radius, self.gradient_checkpointing = (
            width,
            modulation,
            conv_radius,
            gradient_checkpointing,
        )
        self.compute_dtype = torch.float32
        self.time = TimeEmbedding(cond_dim, fastest=time_frequency) if modulation != "none" else None
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
        level: Float[Tensor, "b *l"] | None,
        at: Int[Tensor, "#b l"],
        mask: Bool[Tensor, "#b 1 l n"] | None,
        past: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "b l w"]:
        """`level` is the noise level of rows or positions (None without a time input), `at` the position numbers.

        `past` has a memory for each block, of earlier positions that are looked at too.
        """
        x = x.to(self.compute_dtype)
        if self.position_proj is not None:
            x = x + self.position_proj(sinusoids(at.float(), HEAD_DIM).to(x.dtype))
        condition = None
        if self.time is not None and level is not None:
            condition = self.time(level if level.ndim == 2 else level[:, None])
        turn = rotary(at, self.width // heads(self.width))
        seen = visible(mask, self.conv_radius) if self.conv_radius and mask is not None else None
        for number, block in enumerate(self.blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, condition, turn, mask, None, seen, use_reentrant=False)
            else:
                x = block(x, condition, turn, mask, None if past is None else past[number], seen)
        x = self.norm(x)
        if self.modulate is not None and condition is not None:
            shift, scale = self.modulate(condition.to(x.dtype)).chunk(2, dim=-1)
            x = x * (1.0 + scale) + shift
        return x
