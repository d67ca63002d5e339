"""Denoisers: a trunk with its input, its output head and its parameterisation. From a state they make a Prediction."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..batch import Batch
from ..codecs.table import TableCodec
from ..prediction import HiddenPrediction, Prediction
from ..processes.absorbing import AbsorbingProcess
from ..processes.gaussian import GaussianProcess
from ..processes.left_to_right import LeftToRightProcess
from .attention import Kind, attention_mask, positions
from .embedding import Tables, TokenEmbedding
from .transformer import Linear, Transformer


@runtime_checkable
class Denoiser(Protocol):
    """The network with its parameterisation.

    `time_free`: the prediction depends on x_t alone, so it can be cached. `self_conditioning`: it takes its own earlier
    estimate of the clean state, in training, sampling and evaluation alike.
    """

    time_free: bool
    self_conditioning: bool

    def __call__(
        self, xt: Tensor, t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: Tensor | None = None
    ) -> Prediction: ...


class LinearHead(Linear):
    """Hidden features to logits."""

    def __init__(self, width: int, vocab: int) -> None:
        super().__init__(width, vocab)
        self.vocab = vocab
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class TokenDenoiser(nn.Module):
    """For processes whose state is token ids: embedding in, logits over real tokens out (the mask has no logit: SUBS).

    Without a time input the masked share of x_t is all the network knows of t, which loses nothing (RADD, theorem 1).
    A trunk with adaptive layer norms is then fed a constant.
    """

    def __init__(
        self,
        trunk: Transformer,
        process: AbsorbingProcess,
        kind: Kind = "full",
        *,
        time: bool = False,
        tables: Tables | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.process, self.kind = trunk, process, kind
        self.embedding = TokenEmbedding(process.vocab + 1, trunk.width, tables)
        self.head = LinearHead(trunk.width, process.vocab)
        self.time_free, self.self_conditioning = not time, False

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """The law of the clean tokens given x_t; it is meant for masked positions."""
        level = torch.zeros_like(t) if self.time_free else self.process.level(t)
        features = self.embedding(xt, self.process.mask, batch)
        hidden = self.trunk(features, level, positions(batch), attention_mask(self.kind, batch))
        return HiddenPrediction(hidden, self.head)


class NextTokenDenoiser(nn.Module):
    """Autoregression as a denoiser: position i is predicted from the tokens before it, whatever stands from i on."""

    time_free = True
    self_conditioning = False

    def __init__(self, trunk: Transformer, process: LeftToRightProcess, *, tables: Tables | None = None) -> None:
        super().__init__()
        self.trunk, self.process = trunk, process
        self.embedding = TokenEmbedding(process.vocab + 1, trunk.width, tables)
        self.head = LinearHead(trunk.width, process.vocab)

    def forward(
        self, xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"], *, batch: Batch, self_cond: None = None
    ) -> Prediction:
        """p(x_i | x_{<i}) at every position; the mask id stands in for the token before the first."""
        at = positions(batch)
        shifted = torch.where(at == 0, self.process.mask, xt.roll(1, dims=1))
        features = self.embedding(shifted, self.process.mask, batch)
        hidden = self.trunk(features, None, at, attention_mask("causal", batch))
        return HiddenPrediction(hidden, self.head)


class PriorHead(nn.Module):
    """Logits of a learned map plus the exact evidence of the noisy state itself (Plaid's output prior, section 4.3).

    log N(x; e_k, sigma^2) is <x, e_k> / sigma^2 - |e_k|^2 / (2 sigma^2) up to a constant, so the network need only
    learn what the context adds. Its input is the hidden features beside x / sigma^2 and -1 / (2 sigma^2).
    """

    def __init__(self, linear: LinearHead, table: Float[Tensor, "v d"]) -> None:
        super().__init__()
        self.linear, self.table, self.vocab = linear, table, linear.vocab

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        rows = torch.cat((self.table, self.table.square().sum(-1, keepdim=True)), dim=-1)
        features, evidence = hidden.split((self.linear.in_features, rows.shape[1]), dim=-1)
        return self.linear(features).float() + evidence.float() @ rows.T


class Decoded(nn.Module):
    """The tokens that a noisy state suggests by itself, as features: Bayes' rule with a learned prior, then a table.

    The network then sees its neighbours as (soft) tokens and need not learn to decode them first (SSD-LM, section 3.2,
    reads its simplex in this way).
    """

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.log_prior = nn.Parameter(torch.zeros(vocab))
        self.tokens = nn.Parameter(0.5 * torch.randn(vocab, width))

    def forward(self, evidence: Float[Tensor, "b l v"]) -> Float[Tensor, "b l w"]:
        """`evidence` is log q(x_t | token) up to a constant."""
        return (evidence + self.log_prior).softmax(-1) @ self.tokens


class StateDenoiser(nn.Module):
    """For processes whose state is vectors: logits from the scaled state, given tokens and self-conditioning.

    The input at a position is [scaled x or 0 if given, clean state or 0 if not, given bit, self-conditioning] (CDCD,
    section 3.2), where s is the root mean square of clean states. `prior` adds the state's own evidence to the logits.
    """

    time_free = False

    def __init__(
        self,
        trunk: Transformer,
        process: GaussianProcess,
        codec: TableCodec,
        *,
        prior: bool = True,
        decoded: bool = False,
        self_conditioning: bool = True,
    ) -> None:
        super().__init__()
        self.self_conditioning = self_conditioning
        self.trunk, self.process, self.codec, self.prior = trunk, process, codec, prior
        self.input = Linear(3 * codec.dim + 1, trunk.width)
        self.decoded = Decoded(codec.vocab, trunk.width) if decoded else None
        self.head = LinearHead(trunk.width, codec.vocab)
        self.scale = codec.norm / codec.dim**0.5

    def forward(
        self,
        xt: Float[Tensor, "b l d"],
        t: Float[Tensor, "b *l"],
        *,
        batch: Batch,
        self_cond: Float[Tensor, "b l d"] | None = None,
    ) -> Prediction:
        """The law of the clean tokens given x_t; `self_cond` is an earlier posterior mean (None: none yet)."""
        sigma = self.process.sigma(t)
        sigma = sigma[..., None] if sigma.ndim == 2 else sigma[:, None, None]
        given = torch.zeros_like(batch.noised) if batch.given is None else batch.given
        bit = given[..., None].to(xt.dtype)
        scaled = xt / torch.sqrt(sigma**2 + self.scale**2) * (1.0 - bit)
        estimate = torch.zeros_like(xt) if self_cond is None else self_cond
        features = torch.cat((scaled, self._given(batch, bit), bit, estimate * (1.0 - bit) / self.scale), dim=-1)
        features, table = self.input(features), self.codec.table()
        if self.decoded is not None:
            features = features + self.decoded(self.codec.evidence(xt, sigma)) * (1.0 - bit)
        hidden = self.trunk(features, self.process.level(t), positions(batch), attention_mask("full", batch))
        if not self.prior:
            return HiddenPrediction(hidden, self.head, table)
        evidence = torch.cat((xt, torch.full_like(xt[..., :1], -0.5)), dim=-1) / sigma**2
        hidden = torch.cat((hidden.float(), evidence), dim=-1)
        return HiddenPrediction(hidden, PriorHead(self.head, table), table)

    def _given(self, batch: Batch, bit: Float[Tensor, "b l 1"]) -> Float[Tensor, "b l d"]:
        return self.codec.encode(batch.ids) * bit / self.scale
