"""From a trunk's features to a Prediction about vectors: the parameterisations of the continuous families."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.codecs import BitCodec, TableCodec
from ..diffusion.prediction import BitPrediction, LazyPrediction, Prediction, X0Prediction
from .transformer import Linear


@runtime_checkable
class OutputHead(Protocol):
    """Makes a Prediction of the trunk's features, beside the noisy state and its noise level."""

    def __call__(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction: ...


class LinearHead(Linear):
    """Hidden features to logits."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__(width, vocab_size)
        self.vocab_size = vocab_size
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class OwnHead(nn.Module):
    """Logits of a learned map plus the exact evidence of the noisy token itself: what PriorHead is to vectors.

    So the network need only learn what the others say of a position. Its input is the hidden features beside the token
    and its evidence in nats.
    """

    def __init__(self, linear: LinearHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.vocab_size, self.dtype = linear, linear.vocab_size, dtype

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        features, token, own = hidden.split((self.linear.in_features, 1, 1), dim=-1)
        return self.linear(features.to(self.dtype)).float().scatter_add(-1, token.long(), own)


class PriorHead(nn.Module):
    """Logits of a learned map plus the exact evidence of the noisy state itself (Plaid's output prior, section 4.3).

    log N(x; e_k, sigma^2) is <x, e_k> / sigma^2 - |e_k|^2 / (2 sigma^2) up to a constant, so the network need only
    learn what the context adds. Its input is the hidden features beside x / sigma^2 and -1 / (2 sigma^2).
    """

    def __init__(self, linear: LinearHead, table: Float[Tensor, "v d"], dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.table, self.vocab_size, self.dtype = linear, table, linear.vocab_size, dtype

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        rows = torch.cat((self.table, self.table.square().sum(-1, keepdim=True)), dim=-1)
        features, evidence = hidden.split((self.linear.in_features, rows.shape[1]), dim=-1)
        return self.linear(features.to(self.dtype)).float() + evidence.float() @ rows.T


class X0LogitsHead(nn.Module):
    """Logits of a learned map; the state's mean follows from them (score interpolation: CDCD, section 3.1).

    `prior` adds the state's own evidence to the logits.
    """

    def __init__(self, width: int, codec: TableCodec, *, prior: bool = True) -> None:
        super().__init__()
        self.codec, self.prior = codec, prior
        self.head = LinearHead(width, codec.vocab_size)

    def forward(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction:
        """The law of the clean tokens."""
        table = self.codec.table()
        if not self.prior:
            return LazyPrediction(hidden, self.head, table)
        evidence = torch.cat((x, torch.full_like(x[..., :1], -0.5)), dim=-1) / sigma**2
        head = PriorHead(self.head, table, hidden.dtype)
        return LazyPrediction(torch.cat((hidden.float(), evidence), dim=-1), head, table)


class RoundingHead(nn.Module):
    """A vector to logits of the tokens near it: -|x - e_k|^2 / 2 up to a constant.

    For rows of equal norm this is the inner product that Diffusion-LM rounds by (section 4.2), its map tied to the
    embeddings. Without the `bias` the likeliest token is the nearest.
    """

    def __init__(self, codec: TableCodec, bias: bool = True) -> None:
        super().__init__()
        self.codec, self.vocab_size = codec, codec.vocab_size
        self.bias = nn.Parameter(torch.zeros(codec.vocab_size)) if bias else None

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        logits = self.codec.evidence(x.float(), torch.ones((), device=x.device))
        return logits if self.bias is None else logits + self.bias


Preconditioning = Literal["none", "karras", "tanh", "evidence"]


class X0RegressionHead(nn.Module):
    """The clean state itself, by a learned map F; tokens are read from it by rounding (Diffusion-LM, section 4.2).

    With `preconditioning` it is c_skip x + c_out F: those of EDM (table 1), or mini CDCD's first, 1 - tanh and tanh of
    the noise. Noise is in units of the root mean square s of clean states, and F of order 1. `evidence` starts from
    what the noisy state says by itself: F is added to the mean of Bayes' rule over the table, in units of the standard
    deviation that this leaves, so that little noise leaves it nothing to learn. `interpolated` predictions have the
    mean of the tokens that were read, beside the state that is fitted. Rounding has a learned `bias` where
    cross-entropy is part of the loss.
    """

    def __init__(
        self,
        width: int,
        codec: TableCodec,
        *,
        preconditioning: Preconditioning = "none",
        interpolated: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.preconditioning, self.mean_from_logits = preconditioning, interpolated
        self.codec, self.scale = codec, codec.scale
        self.output = Linear(width, codec.dim)
        self.rounding = RoundingHead(codec, bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction:
        """The regressed state and the law of the tokens near it."""
        table, learned = self.codec.table(), self.output(hidden).float()
        if self.preconditioning == "evidence":
            own = self.codec.evidence(x, sigma).softmax(-1)
            centre = own @ table
            left = own @ table.square().sum(-1, keepdim=True) - centre.square().sum(-1, keepdim=True)
            state = centre + torch.sqrt(left.detach().clamp(min=0.0) / self.codec.dim) * learned
        else:
            skip, out = self.coefficients(sigma / self.scale)
            state = skip * x + out * self.scale * learned
        return X0Prediction(state, self.rounding, table, self.mean_from_logits)

    def coefficients(self, noise: Float[Tensor, "*b"]) -> tuple[Tensor | float, Tensor | float]:
        """c_skip and c_out / s at a noise level sigma / s."""
        match self.preconditioning:
            case "karras":
                return 1.0 / (1.0 + noise**2), noise / torch.sqrt(1.0 + noise**2)
            case "tanh":
                return 1.0 - torch.tanh(noise), torch.tanh(noise)
            case _:
                return 0.0, 1.0


class BitHead:
    """Log odds of bits to logits of tokens: log sigmoid(sign * odds) is sign * odds / 2 up to what all words share.

    Words of no token are left out, so that they have no probability.
    """

    def __init__(self, codec: BitCodec) -> None:
        self.codec, self.vocab_size = codec, codec.vocab_size

    def __call__(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        return hidden @ self.codec.table().T * (0.5 / self.codec.scale)


class BitLogitsHead(nn.Module):
    """Log odds of every bit of a code word (the logistic head of Analog Bits).

    `prior` adds the exact evidence of the noisy bit itself, 2 scale x / sigma^2.
    """

    def __init__(self, width: int, codec: BitCodec, *, prior: bool = True) -> None:
        super().__init__()
        self.codec, self.prior, self.head = codec, prior, BitHead(codec)
        self.output = Linear(width, codec.dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction:
        """The law of the bits."""
        odds = self.output(hidden).float()
        if self.prior:
            odds = odds + 2.0 * self.codec.scale * x / sigma**2
        return BitPrediction(odds, self.head, self.codec.table(), self.codec.scale)
