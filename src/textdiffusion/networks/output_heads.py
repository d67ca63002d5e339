"""Output heads: from a backbone's features to a Prediction about vectors.

The parameterisations of the continuous families: logits of tokens, the clean vector itself, or logits of bits.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..core.registry import Part, builds
from ..core.types import Hidden, Sigma, Values, Vectors
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.table_codecs import BitCodec, TableCodec
from ..diffusion.vector_predictions import BitPrediction, X0Prediction
from .heads import BitHead, LinearHead, PriorHead, RoundingHead
from .layers import Linear, zero_init


class OutputHeadConfig(Part, ABC):
    """What the network of a continuous family predicts. `codecs` are the classes of codecs that it works with."""

    codecs: ClassVar[tuple[type[nn.Module], ...]] = (TableCodec,)


@runtime_checkable
class OutputHead(Protocol):
    """Makes a Prediction from the backbone's features, the noisy state and its noise level."""

    def __call__(self, hidden: Hidden, x: Vectors, sigma: Sigma) -> Prediction: ...


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

    def forward(self, hidden: Hidden, x: Vectors, sigma: Sigma) -> Prediction:
        """The distribution of the clean tokens given x_t."""
        table = self.codec.table()
        if not self.prior:
            return LazyPrediction(hidden, self.head, table)
        evidence = torch.cat((x, torch.full_like(x[..., :1], -0.5)), dim=-1) / sigma**2
        head = PriorHead(self.head, table, hidden.dtype)
        return LazyPrediction(torch.cat((hidden.float(), evidence), dim=-1), head, table)


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

    def __init__(self, width: int, codec: TableCodec, config: X0Regression) -> None:
        super().__init__()
        self.preconditioning, self.mean_from_logits = config.preconditioning, config.mean_from_logits
        self.codec, self.scale = codec, codec.scale
        self.output = zero_init(Linear(width, codec.dim))
        self.rounding = RoundingHead(codec, config.bias)

    def forward(self, hidden: Hidden, x: Vectors, sigma: Sigma) -> Prediction:
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

    def coefficients(self, noise: Values) -> tuple[Tensor | float, Tensor | float]:
        """c_skip and c_out / s at a noise level sigma / s."""
        match self.preconditioning:
            case "karras":
                return 1.0 / (1.0 + noise**2), noise / torch.sqrt(1.0 + noise**2)
            case "tanh":
                return 1.0 - torch.tanh(noise), torch.tanh(noise)
            case _:
                return 0.0, 1.0


@dataclass(frozen=True)
class BitLogits(OutputHeadConfig):
    """Log odds of each bit of a code word. `prior` adds the evidence of the noisy bit itself to them."""

    codecs: ClassVar = (BitCodec,)

    prior: bool = True


@builds(BitLogits)
class BitLogitsHead(nn.Module):
    """Log odds of every bit of a code word (Analog Bits, Chen et al. 2022, with a logistic head).

    `prior` adds the exact evidence of the noisy bit itself, 2 scale x / sigma^2.
    """

    def __init__(self, width: int, codec: BitCodec, *, prior: bool = True) -> None:
        super().__init__()
        self.codec, self.prior, self.head = codec, prior, BitHead(codec)
        self.output = zero_init(Linear(width, codec.dim))

    def forward(self, hidden: Hidden, x: Vectors, sigma: Sigma) -> Prediction:
        """The distribution of the bits, which are independent."""
        odds = self.output(hidden).float()
        if self.prior:
            odds = odds + 2.0 * self.codec.scale * x / sigma**2
        return BitPrediction(odds, self.head, self.codec.table(), self.codec.scale)
