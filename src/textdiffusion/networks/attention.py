"""Who may look at whom, and the attention itself."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.batch import Batch, position_ids

Kind = Literal["full", "causal", "block_causal", "two_stream"]


def attention_mask(kind: Kind, batch: Batch, block: int = 1) -> Bool[Tensor, "#b 1 m n"] | None:
    """True where a query (second to last axis) may look at a key (last); None: everywhere.

    `causal` looks at itself and the left; `block_causal` at its own block of `block` positions and those to the left
    (blocks are counted from the start of an example, in packed rows too);
    `two_stream` is for rows of twice the length, a noised copy then a clean one: a noised block looks at itself and at
    earlier clean blocks, a clean block at clean blocks up to its own (BD3-LM, section 4). Nobody looks at padding, and
    packed examples never look at each other.
    """
    mask = _order(kind, position_ids(batch) // (1 if kind == "causal" else block))
    inside = _inside(batch)
    if kind == "two_stream" and inside is not None:
        inside = inside.repeat(1, 2, 2)
    if mask is None:
        return None if inside is None else inside[:, None]
    return (mask if inside is None else mask & inside)[:, None]


def _order(kind: Kind, at: Int[Tensor, "#b l"]) -> Bool[Tensor, "#b m n"] | None:
    query, key = at[:, :, None], at[:, None, :]
    match kind:
        case "full":
            return None
        case "causal" | "block_causal":
            return query >= key
        case "two_stream":
            noised = torch.cat((query == key, query > key), dim=2)
            return torch.cat((noised, torch.cat((torch.zeros_like(query == key), query >= key), dim=2)), dim=1)


def _inside(batch: Batch) -> Bool[Tensor, "b l l"] | None:
    if batch.segment_ids is not None:
        inside = batch.segment_ids[:, :, None] == batch.segment_ids[:, None, :]
    elif batch.valid_mask is not None:
        inside = batch.valid_mask[:, None, :].expand(-1, batch.tokens.shape[1], -1)
    else:
        return None
    if batch.valid_mask is not None:
        inside = inside & batch.valid_mask[:, None, :]
    # A position always sees itself: a row of nothing but padding would be softmax over nothing.
    return inside | torch.eye(batch.tokens.shape[1], dtype=torch.bool, device=batch.tokens.device)


def rotary(at: Int[Tensor, "#b l"], dim: int, base: float = 10000.0) -> Float[Tensor, "2 #b 1 l half"]:
    """Cosines and sines of rotary positions (RoFormer, eq. 34)."""
    frequencies = base ** (-torch.arange(0, dim, 2, device=at.device).float() / dim)
    angles = at[:, None, :, None].float() * frequencies
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Float[Tensor, "b h l e"], turn: Float[Tensor, "2 #b 1 l half"]) -> Float[Tensor, "b h l e"]:
    """Turns the two halves of each head's features by the position's angles."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = turn[0].to(x.dtype), turn[1].to(x.dtype)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def attend(
    q: Float[Tensor, "b h m e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    mask: Bool[Tensor, "#b 1 m n"] | None,
) -> Float[Tensor, "b h m e"]:
    """Softmax attention by the backend that is fastest for the device and the task.

    On a CPU the fused kernel's backward is the slow part, so training at short lengths multiplies matrices plainly.
    """
    if q.device.type == "cpu" and torch.is_grad_enabled() and k.shape[2] <= 1024:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
