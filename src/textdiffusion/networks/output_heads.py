"""Output heads: from a backbone's features to a Prediction about vectors.

The parameterisations of the continuous families: logits of tokens, the clean vector itself, or logits of bits.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.registry import Part, builds
from ..diffusion.codecs import BitCodec, TableCodec
from ..diffusion.prediction import BitPrediction, LazyPrediction, Prediction, X0Prediction
from .layers import Linear


class OutputHeadConfig(Part, ABC):
    """What the network of a continuous family predicts. `codecs` are the classes of codecs that it works with."""

    codecs: ClassVar[tuple[type[nn.Module], ...]] = (TableCodec,)


@runtime_checkable
class OutputHead(Protocol):
    """Makes a Prediction from the backbone's features, the noisy state and its noise level."""

    def __call__(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction: ...


class LinearHead(Linear):
    """A linear map from features to logits, zero at the start."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__(width, vocab_size)
        self.vocab_size = vocab_size
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


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

    def __init__(self, linear: LinearHead, table: Float[Tensor, "v d"], dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.table, self.vocab_size, self.dtype = linear, table, linear.vocab_size, dtype

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        rows = torch.cat((self.table, self.table.square().sum(-1, keepdim=True)), dim=-1)
        features, evidence = hidden.split((self.linear.in_features, rows.shape[1]), dim=-1)
        return self.linear(features.to(self.dtype)).float() + evidence.float() @ rows.T


@dataclass(frozen=True)
class X0Logits(OutputHeadConfig):
    """Logits of the clean tokens. `prior` adds the evidence of the noisy state itself to them."""

    prior: bool = True


@builds(X0Logits)
class X0LogitsHead(nn.Module):
    """Logits of a learned map; the mean of the state follows from them (score interpolation: CDCD, section 3.1)."""

    def __init__(self, width: int, codec: TableCodec, *, prior: bool = True) -> None:
        super().__init__()
        self.codec, self.prior = codec, prior
        self.head = LinearHead(width, codec.vocab_size)

    def forward(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction:
        """The distribution of the clean tokens given x_t."""
        table = self.codec.table()
        if not self.prior:
            return LazyPrediction(hidden, self.head, table)
        evidence = torch.cat((x, torch.full_like(x[..., :1], -0.5)), dim=-1) / sigma**2
        head = PriorHead(self.head, table, hidden.dtype)
        return LazyPrediction(torch.cat((hidden.float(), evidence), dim=-1), head, table)


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


Preconditioning = Literal["none", "karras", "tanh", "evidence"]


@dataclass(frozen=True)
class X0Regression(OutputHeadConfig):
    """The clean state itself; its tokens are found by rounding.

    `mean_from_logits`: sampling and evaluation continue from the mean of those tokens instead of the predicted state.
    `bias`: rounding has a learned bias, which cross-entropy as part of the loss trains.
    """

    preconditioning: Preconditioning = "none"
    mean_from_logits: bool = False
    bias: bool = True


@builds(X0Regression)
class X0RegressionHead(nn.Module):
    """The clean state itself, by a learned map F; its tokens are found by rounding (Diffusion-LM, section 4.2).

    With `preconditioning` the state is c_skip x + c_out F, where noise is in units of the root mean square s of clean
    states and F is of order 1. `karras`: the coefficients of EDM (table 1). `tanh`: those of mini CDCD, 1 - tanh and
    tanh of the noise. `evidence`: F, in units of the posterior standard deviation, is added to the posterior mean over
    the table given the noisy state alone, so at little noise nothing is left to learn. With `mean_from_logits` the
    prediction's mean is that of the rounded tokens, and its `x0_estimate` is the state.
    """

    def __init__(
        self,
        width: int,
        codec: TableCodec,
        *,
        preconditioning: Preconditioning = "none",
        mean_from_logits: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.preconditioning, self.mean_from_logits = preconditioning, mean_from_logits
        self.codec, self.scale = codec, codec.scale
        self.output = Linear(width, codec.dim)
        self.rounding = RoundingHead(codec, bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, hidden: Float[Tensor, "b l w"], x: Float[Tensor, "b l d"], sigma: Float[Tensor, "b #l 1"]
    ) -> Prediction:
        """The predicted state and the distribution of the tokens near it."""
        table, learned = self.codec.table(), self.output(hidden).float()
        if self.preconditioning == "evidence":
            probs = self.codec.evidence(x, sigma).softmax(-1)
            mean = probs @ table
            variance = probs @ table.square().sum(-1, keepdim=True) - mean.square().sum(-1, keepdim=True)
            state = mean + torch.sqrt(variance.detach().clamp(min=0.0) / self.codec.dim) * learned
        else:
            c_skip, c_out = self.coefficients(sigma / self.scale)
            state = c_skip * x + c_out * self.scale * learned
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
    """Logits of bits to logits of tokens: log sigmoid(sign * odds) is sign * odds / 2 up to a term all words share.

    Code words without a token get no probability.
    """

    def __init__(self, codec: BitCodec) -> None:
        self.codec, self.vocab_size = codec, codec.vocab_size

    def __call__(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        return hidden @ self.codec.table().T * (0.5 / self.codec.scale)


@dataclass(frozen=True)
class BitLogits(OutputHeadConfig):
    """Log odds of each bit of a code word. `prior` adds the evidence of the noisy bit itself to them."""

    codecs: ClassVar[tuple[type[nn.Module], ...]] = (BitCodec,)

    prior: bool = True


@builds(BitLogits)
class BitLogitsHead(nn.Module):
    """Log odds of every bit of a code word (Analog Bits, Chen et al. 2022, with a logistic head).

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
        """The distribution of the bits, which are independent."""
        odds = self.output(hidden).float()
        if self.prior:
            odds = odds + 2.0 * self.codec.scale * x / sigma**2
        return BitPrediction(odds, self.head, self.codec.table(), self.codec.scale)
