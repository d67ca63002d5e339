"""Attention masks, rotary positions, and attention itself."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.batch import Batch, position_ids
from ..core.types import PositionIds

Pattern = Literal["full", "causal", "block_causal", "two_stream"]


def attention_mask(pattern: Pattern, batch: Batch, block_size: int = 1) -> Bool[Tensor, "#b 1 m n"] | None:
    """True where a query (second to last axis) may see a key (last axis); None if every query may see every key.

    `causal`: a position sees itself and those before it. `block_causal`: a position sees its own block and those before
    it; blocks are counted from the start of an example, in packed rows too. `two_stream`: rows have twice the length, a
    noisy copy then a clean one; a noisy block sees itself and earlier clean blocks, a clean block sees clean blocks up
    to itself (BD3-LM, section 4). No position sees padding, and packed examples never see each other.
    """
    mask = _pattern_mask(pattern, position_ids(batch) // (1 if pattern == "causal" else block_size))
    example_mask = _example_mask(batch)
    if pattern == "two_stream" and example_mask is not None:
        example_mask = example_mask.repeat(1, 2, 2)
    if mask is None:
        return None if example_mask is None else example_mask[:, None]
    return (mask if example_mask is None else mask & example_mask)[:, None]


def causal_mask(batch: Batch, start: int = 0) -> Bool[Tensor, "#b 1 m n"] | None:
    """`attention_mask("causal")` for the queries from `start` on; None if all of these may see every key."""
    sees_all = start == batch.tokens.shape[1] - 1 and batch.valid_mask is None and batch.segment_ids is None
    mask = None if sees_all else attention_mask("causal", batch)
    return mask if mask is None else mask[:, :, start:]


def _pattern_mask(pattern: Pattern, block_ids: PositionIds) -> Bool[Tensor, "#b m n"] | None:
    query, key = block_ids[:, :, None], block_ids[:, None, :]
    match pattern:
        case "full":
            return None
        case "causal" | "block_causal":
            return query >= key
        case "two_stream":
            noisy = torch.cat((query == key, query > key), dim=2)
            clean = torch.cat((torch.zeros_like(query == key), query >= key), dim=2)
            return torch.cat((noisy, clean), dim=1)


def _example_mask(batch: Batch) -> Bool[Tensor, "b l l"] | None:
    if batch.segment_ids is not None:
        mask = batch.segment_ids[:, :, None] == batch.segment_ids[:, None, :]
    elif batch.valid_mask is not None:
        mask = batch.valid_mask[:, None, :].expand(-1, batch.tokens.shape[1], -1)
    else:
        return None
    if batch.valid_mask is not None:
        mask = mask & batch.valid_mask[:, None, :]
    # A position always sees itself: a row of nothing but padding would be softmax over nothing.
    return mask | torch.eye(batch.tokens.shape[1], dtype=torch.bool, device=batch.tokens.device)


def rotary(positions: PositionIds, dim: int, base: float = 10000.0) -> Float[Tensor, "2 #b 1 l half"]:
    """Cosines and sines of rotary positions (RoFormer, eq. 34)."""
    frequencies = base ** (-torch.arange(0, dim, 2, device=positions.device).float() / dim)
    angles = positions[:, None, :, None].float() * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Float[Tensor, "b h l e"], cos_sin: Float[Tensor, "2 #b 1 l half"]) -> Float[Tensor, "b h l e"]:
    """Rotates the two halves of each head's features by the angles whose cosines and sines `rotary` gives."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos_sin[0].to(x.dtype), cos_sin[1].to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    mask: Bool[Tensor, "#b 1 m n"] | None,
) -> Float[Tensor, "b h m e"]:
    """Softmax attention by the backend that is fastest for the device and the task.

    On a CPU the fused kernel's backward pass is slow, so training at short lengths uses plain matrix products.
    """
    if q.device.type == "cpu" and torch.is_grad_enabled() and k.shape[2] <= 1024:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
