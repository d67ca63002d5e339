"""A denoiser that learns ratios of probabilities (SEDD, Lou et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.registry import builds
from ..core.types import Hidden, Logits, Mask, NoiseTimes, PerPosition, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.prediction import LazyPrediction, Prediction
from ..diffusion.ratios import Graph
from ..diffusion.uniform import UniformProcess
from .backbone import Backbone
from .denoiser import NgramDenoiserConfig
from .heads import LinearHead
from .token_denoiser import TokenDenoiser


class ScoreHead(nn.Module):
    """Features, with the noisy token and t appended, to log ratios in float32; `forward` gives clean-token logits.

    `scale_by_sigma` divides the ratios by the vocabulary size and by e^sigma - 1, so that zeros as output mean the
    ratios of the uniform distribution at every noise level. The ratio of a token to itself is 1.
    """

    def __init__(self, linear: LinearHead, graph: Graph, scale_by_sigma: bool) -> None:
        super().__init__()
        self.linear, self.graph, self.vocab_size = linear, graph, linear.vocab_size
        self.scale_by_sigma = scale_by_sigma

    def log_score(
        self, hidden: Float[Tensor, "n w"]
    ) -> tuple[Float[Tensor, "n v"], Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Log ratios, and the noisy tokens and times they belong to."""
        features, xt, t = hidden.split((self.linear.in_features, 1, 1), dim=-1)
        xt, t, raw = xt[:, 0].long(), t[:, 0], self.linear(features)
        if self.scale_by_sigma:
            raw = self.graph.log_score(torch.zeros_like(raw), xt, t) + raw
        same = xt[:, None] == torch.arange(self.vocab_size, device=xt.device)
        return raw.masked_fill(same, 0.0), xt, t

    def forward(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n v"]:
        return self.graph.x0_logits(*self.log_score(hidden))


class ScorePrediction(LazyPrediction):
    """Ratios of probabilities, held as features; the distribution of the clean tokens follows from them."""

    def __init__(self, hidden: Hidden, head: ScoreHead) -> None:
        super().__init__(hidden, head)
        self.score_head = head

    @cached_property
    def _log_score(self) -> tuple[Float[Tensor, "n v"], Int[Tensor, " n"], Float[Tensor, " n"]]:
        return self.score_head.log_score(self.hidden.flatten(0, 1))

    @cached_property
    def logits(self) -> Logits:
        return self.score_head.graph.x0_logits(*self._log_score).unflatten(0, self.hidden.shape[:2])

    def log_score(self, graph: Graph, xt: Tokens, t: PerPosition) -> Logits:
        return self._log_score[0].unflatten(0, xt.shape)

    def score_entropy(self, graph: Graph, tokens: Tokens, where: Mask, xt: Tokens, t: PerPosition) -> PerPosition:
        def of_positions(hidden: Tensor, tokens: Tensor) -> Tensor:
            log_score, xt, t = self.score_head.log_score(hidden)
            return graph.score_entropy(log_score, tokens, xt, t)

        return self._map_hidden(where, of_positions, tokens)


@dataclass(frozen=True)
class ScoreDenoiserConfig(NgramDenoiserConfig):
    """Token ids in, ratios of probabilities out (SEDD). `time` as for MaskDenoiserConfig.

    `scale_by_sigma` divides the ratios at masks by their growth as noise falls, so the network need not learn it.
    """

    processes: ClassVar = (AbsorbingProcess, UniformProcess)

    scale_by_sigma: bool = True
    time: bool = True


@builds(ScoreDenoiserConfig)
class ScoreDenoiser(TokenDenoiser):
    """A TokenDenoiser whose head gives log ratios, from float32 features whatever the backbone's precision.

    Exponentials of scores that were rounded to bfloat16 are a likely cause of the divergence users report of SEDD.
    """

    def __init__(
        self, backbone: Backbone, process: AbsorbingProcess | UniformProcess, config: ScoreDenoiserConfig
    ) -> None:
        super().__init__(backbone, process, config, time=config.time)
        self.scale_by_sigma = config.scale_by_sigma

    def output(self, hidden: Hidden, xt: Tokens, t: NoiseTimes) -> Prediction:
        """The ratios at the noised positions of x_t."""
        times = (t if t.ndim == 2 else t[:, None]).expand(xt.shape)
        head = ScoreHead(self.head, self.process.graph, self.scale_by_sigma)
        return ScorePrediction(torch.cat((hidden.float(), torch.stack((xt.float(), times), dim=-1)), dim=-1), head)
