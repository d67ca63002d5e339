"""Layers that the networks share: maps and norms in the features' dtype, embeddings of scalars, Canon layers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..core.types import AttentionMask, Hidden, NoiseTimes, Values

HEAD_DIM = 64  # the width at which both CPU and GPU matrix units are well fed


def num_heads(width: int) -> int:
    """Attention heads of a network of this width: one for every 64 features, at least one."""
    return max(1, width // HEAD_DIM)


class Linear(nn.Linear):
    """A linear map whose float32 weights are cast to the dtype of its input: the compute dtype is the features' own."""

    def forward(self, input: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


def zero_init(layer: Linear) -> Linear:
    """The same layer, with all its parameters zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class LayerNorm(nn.LayerNorm):
    """A layer norm whose float32 weights are cast to the dtype of its input."""

    def forward(self, input: Float[Tensor, "*b w"]) -> Float[Tensor, "*b w"]:
        weight, bias = (None if p is None else p.to(input.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def sinusoids(x: Values, features: int) -> Float[Tensor, "*b f"]:
    """Cosines and sines of `x` at frequencies log-spaced from 1 down to 1 / 10000."""
    steps = torch.arange(features // 2, device=x.device) / (features // 2)
    angles = x[..., None] * torch.exp(-math.log(10000.0) * steps)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """A scalar noise level to a conditioning vector: sinusoids, then a two-layer perceptron.

    `max_frequency` is that of the fastest sinusoid, in radians per unit of the noise level.
    """

    def __init__(self, width: int, features: int = 256, max_frequency: float = 1000.0) -> None:
        super().__init__()
        self.features, self.max_frequency = features, max_frequency
        self.mlp = nn.Sequential(Linear(features, width), nn.SiLU(), Linear(width, width))

    def forward(self, noise_level: NoiseTimes) -> Float[Tensor, "b #l c"]:
        """From noise levels of order 1, per row or position; frequencies are log-spaced over four decades."""
        noise_level = noise_level if noise_level.ndim == 2 else noise_level[:, None]
        return F.silu(self.mlp(sinusoids(noise_level.float() * self.max_frequency, self.features)))


def modulated(x: Hidden, modulate: Linear | None, condition: Float[Tensor, "b #l c"] | None) -> Hidden:
    """`x` scaled and shifted by a linear map of the condition (None: unchanged)."""
    if modulate is None or condition is None:
        return x
    shift, scale = modulate(condition.to(x.dtype)).chunk(2, dim=-1)
    return x * (1.0 + scale) + shift


class CanonConv(nn.Module):
    """Each feature plus a weighted sum of itself at up to `radius` positions away: a depthwise convolution.

    "Canon layers" (Allen-Zhu 2025), here limited to positions that attention may see. Weights start at zero. Few heads
    cannot tell many near positions apart, and without this layer a small network spends its training on learning to
    fetch the neighbouring letters (docs/experiments.md).
    """

    def __init__(self, width: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.weight = nn.Parameter(torch.zeros(width, 1, 1, 2 * radius + 1))

    def forward(
        self, x: Hidden, visible: Bool[Tensor, "k #b l 1"] | None, before: Float[Tensor, "b r w"] | None = None
    ) -> Hidden:
        """`visible` is `visible_neighbours` of the attention mask (None: all neighbours are visible).

        `before` are the features of the `radius` positions before x (None: x is the start of the rows).
        """
        weight = self.weight.to(x.dtype)
        if before is not None:
            padded = F.pad(torch.cat((before, x), dim=1), (0, 0, 0, self.radius))
            windows = padded.unfold(1, 2 * self.radius + 1, 1) * weight[:, 0, 0]
            return x + (windows if visible is None else windows * visible.permute(1, 2, 3, 0)).sum(-1)
        if visible is None and not torch.compiler.is_compiling():
            # On a CPU twice as fast in two dimensions, one of them 1, as in one. Compiled, the sum below is faster yet.
            conv = F.conv2d(x.mT[:, :, None], weight, padding=(0, self.radius), groups=len(weight))
            return x + conv[:, :, 0].mT
        length, total = x.shape[1], x
        padded = F.pad(x, (0, 0, self.radius, self.radius))
        for tap, scale in enumerate(weight[:, 0, 0].unbind(-1)):
            shifted = padded[:, tap : tap + length]
            total = total + scale * (shifted if visible is None else shifted * visible[tap])
        return total


def visible_neighbours(mask: AttentionMask, radius: int) -> Bool[Tensor, "k #b l 1"]:
    """Whether a position may see its neighbour, for each of the 2 `radius` + 1 offsets from left to right.

    Where there are fewer queries than keys, the queries are the last positions.
    """
    queries, keys = mask.shape[-2:]
    visible = []
    for neighbour in range(-radius, radius + 1):
        offset = max(-queries, min(keys - queries + neighbour, keys))
        diagonal = mask[:, 0].diagonal(offset, 1, 2)
        left = max(0, -offset)
        visible.append(F.pad(diagonal, (left, queries - left - diagonal.shape[-1])))
    return torch.stack(visible)[..., None]
