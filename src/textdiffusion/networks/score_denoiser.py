"""A denoiser that learns ratios of probabilities (SEDD)."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.ratios import Graph
from ..diffusion.uniform import UniformProcess
from .backbone import Backbone
from .embedding import NgramTables
from .output_heads import LinearHead
from .token_denoiser import TokenDenoiser


class ScoreHead(nn.Module):
    """Hidden features beside the noisy token and t, to log ratios in float32; `forward` reads clean logits from them.

    `scaled` divides the ratios by the vocabulary and by e^sigma - 1, so that a network that puts out zeros gives those
    of the uniform law at every noise level. The ratio of a token to itself is 1.
    """

    def __init__(self, linear: LinearHead, graph: Graph, scaled: bool) -> None:
        super().__init__()
        self.linear, self.graph, self.scaled, self.vocab_size = linear, graph, scaled, linear.vocab_size

    def log_score(
        self, hidden: Float[Tensor, "n w"]
    ) -> tuple[Float[Tensor, "n v"], Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Log ratios, and the noisy tokens and times they belong to."""
        features, xt, t = hidden.split((self.linear.in_features, 1, 1), dim=-1)
        xt, t, raw = xt[:, 0].long(), t[:, 0], self.linear(features)
        if self.scaled:
            raw = self.graph.log_score(torch.zeros_like(raw), xt, t) + raw
        own = xt[:, None] == torch.arange(self.vocab_size, device=xt.device)
        return raw.masked_fill(own, 0.0), xt, t

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        return self.graph.x0_logits(*self.log_score(hidden))


class ScorePrediction(LazyPrediction):
    """Ratios of probabilities held as hidden states; the clean-token view follows from them."""

    def __init__(self, hidden: Float[Tensor, "b l w"], head: ScoreHead) -> None:
        super().__init__(hidden, head)
        self.ratios = head

    @cached_property
    def _whole(self) -> tuple[Float[Tensor, "n v"], Int[Tensor, " n"], Float[Tensor, " n"]]:
        return self.ratios.log_score(self.hidden.flatten(0, 1))

    @cached_property
    def logits(self) -> Float[Tensor, "b l v"]:
        return self.ratios.graph.x0_logits(*self._whole).unflatten(0, self.hidden.shape[:2])

    def log_score(self, graph: Graph, xt: Int[Tensor, "b l"], t: Float[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
        return self._whole[0].unflatten(0, xt.shape)

    def score_entropy(
        self,
        graph: Graph,
        tokens: Int[Tensor, "b l"],
        where: Bool[Tensor, "b l"],
        xt: Int[Tensor, "b l"],
        t: Float[Tensor, "b l"],
    ) -> Float[Tensor, "b l"]:
        def part(hidden: Tensor, tokens: Tensor) -> Tensor:
            log_ratios, xt, t = self.ratios.log_score(hidden)
            return graph.score_entropy(log_ratios, tokens, xt, t)

        return self._map_hidden(where, part, tokens)


class ScoreDenoiser(TokenDenoiser):
    """A TokenDenoiser whose head puts out log ratios, from float32 features whatever the precision of the trunk.

    Exponentials of scores that were rounded to bfloat16 are a likely cause of the divergence users report of SEDD.
    """

    def __init__(
        self,
        backbone: Backbone,
        process: AbsorbingProcess | UniformProcess,
        *,
        scaled: bool,
        time: bool = False,
        tables: NgramTables | None = None,
    ) -> None:
        super().__init__(backbone, process, time=time, tables=tables)
        self.scaled = scaled

    def output(self, hidden: Float[Tensor, "b l w"], xt: Int[Tensor, "b l"], t: Float[Tensor, "b *l"]) -> Prediction:
        """The ratios at the noised positions of x_t."""
        each = (t if t.ndim == 2 else t[:, None]).expand(xt.shape)
        head = ScoreHead(self.head, self.process.graph, self.scaled)
        return ScorePrediction(torch.cat((hidden.float(), torch.stack((xt.float(), each), dim=-1)), dim=-1), head)
