"""Heads: from features to logits of tokens, for the positions that a Prediction asks for."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.types import Table
from ..diffusion.table_codecs import BitCodec, TableCodec
from .layers import Linear, zero_init


class LinearHead(Linear):
    """A linear map from features to logits, zero at the start."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__(width, vocab_size)
        self.vocab_size = vocab_size
        zero_init(self)


class TokenPriorHead(nn.Module):
    """Logits of a learned map plus the exact evidence of the noisy token itself: a PriorHead for tokens.

    So the network need only learn what the other positions say about this one. The input is the features, then the
    noisy token and its evidence in nats.
    """

    def __init__(self, linear: LinearHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.vocab_size, self.dtype = linear, linear.vocab_size, dtype

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        features, token, evidence = hidden.split((self.linear.in_features, 1, 1), dim=-1)
        return self.linear(features.to(self.dtype)).float().scatter_add(-1, token.long(), evidence)


class PriorHead(nn.Module):
    """Logits of a learned map plus the exact evidence of the noisy state itself (Plaid's output prior, section 4.3).

    log N(x; e_k, sigma^2) is <x, e_k> / sigma^2 - |e_k|^2 / (2 sigma^2) up to a constant, so the network need only
    learn what the context adds. The input is the features, then x / sigma^2 and -1 / (2 sigma^2).
    """

    def __init__(self, linear: LinearHead, table: Table, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.table, self.vocab_size, self.dtype = linear, table, linear.vocab_size, dtype

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        rows = torch.cat((self.table, self.table.square().sum(-1, keepdim=True)), dim=-1)
        features, evidence = hidden.split((self.linear.in_features, rows.shape[1]), dim=-1)
        return self.linear(features.to(self.dtype)).float() + evidence.float() @ rows.T


class RoundingHead(nn.Module):
    """A vector to logits of the tokens near it: -|x - e_k|^2 / 2 up to a constant.

    For rows of equal norm this is the inner product that Diffusion-LM rounds by (section 4.2), with a map tied to the
    embeddings. Without the `bias` the likeliest token is the nearest.
    """

    def __init__(self, codec: TableCodec, bias: bool = True) -> None:
        super().__init__()
        self.codec, self.vocab_size = codec, codec.vocab_size
        self.bias = nn.Parameter(torch.zeros(codec.vocab_size)) if bias else None

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        logits = self.codec.evidence(x.float(), torch.ones((), device=x.device))
        return logits if self.bias is None else logits + self.bias


class BitHead:
    """Logits of bits to logits of tokens: log sigmoid(sign * odds) is sign * odds / 2 up to a term all words share.

    Code words without a token get no probability.
    """

    def __init__(self, codec: BitCodec) -> None:
        self.codec, self.vocab_size = codec, codec.vocab_size

    def __call__(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        return hidden @ self.codec.table().T * (0.5 / self.codec.scale)
