"""The dial between autoregression and masked diffusion: masks that come in a wave from the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.randomness import Rng
from ..core.registry import builds, check_bounds
from ..core.types import Mask, NoiseTimes, PerPosition, Tokens, Values
from .absorbing import AbsorbingProcess
from .alpha_schedules import AlphaSchedule, Linear
from .codecs import TokenCodec
from .prediction import Prediction
from .process import KLAndNLL, ProcessConfig, TokenProcess
from .ratios import ReverseStep


@dataclass(frozen=True)
class Wave(ProcessConfig):
    """Tokens become masks in a wave from the right, which about `width` positions are inside of at any time.

    `width` 1 is autoregression, where one position after the other becomes a mask; the length of the text, or more, is
    masked diffusion, where all have the same noise level.
    """

    codecs: ClassVar = (TokenCodec,)

    schedule: AlphaSchedule = Linear()
    width: int = 16

    def __post_init__(self) -> None:
        check_bounds(self, width=(1, None))


@builds(Wave)
class WaveProcess(TokenProcess):
    """The absorbing process with a noise level per position (a hyperschedule: HDLM, arXiv:2504.06416).

    Of n positions, number i (from 0) has the time of its own u_i = (t - s_i) / d, cut to [0, 1], with the duration
    d = min(1, width / n) and the start s_i = (1 - d) (n - 1 - i) / (n - 1). Its token survives with probability
    alpha(u_i). So at the width n every u_i is t, and at the width 1 one position changes at a time, the last first.
    """

    def __init__(self, vocab_size: int, schedule: AlphaSchedule, width: int) -> None:
        super().__init__()
        self.inside, self.width = AbsorbingProcess(vocab_size, schedule), width
        self.vocab_size, self.num_states, self.mask = vocab_size, vocab_size + 1, self.inside.mask
        self.schedule, self.graph = schedule, self.inside.graph

    def time_conditioning(self, t: Values) -> Values:
        return t

    def sample_prior(self, like: Tokens, *, rng: Rng) -> Tokens:
        """All masked."""
        return self.inside.sample_prior(like, rng=rng)

    def is_noisy(self, xt: Tokens) -> Mask:
        return self.inside.is_noisy(xt)

    def self_log_odds(self, xt: Tokens, t: NoiseTimes) -> None:
        """None: a mask carries no information about its token."""

    def duration(self, length: int) -> float:
        """The fraction of the time that the masking of one of `length` positions takes."""
        return min(1.0, self.width / length)

    def local_times(self, t: NoiseTimes, length: int) -> PerPosition:
        """u_i of every position."""
        t, duration = t if t.ndim == 2 else t[:, None], self.duration(length)
        from_right = torch.arange(length - 1, -1, -1, device=t.device) / max(1, length - 1)
        return ((t - (1.0 - duration) * from_right) / duration).clamp(0.0, 1.0)

    def loss_weight(self, t: NoiseTimes, length: int) -> PerPosition:
        """-alpha_i'(t) / (1 - alpha_i(t)), the weight of a mask in the bound; 0 before and after the wave."""
        u = self.local_times(t, length)
        inside = (u > 0.0) & (u < 1.0 if self.duration(length) < 1.0 else u <= 1.0)
        return torch.where(inside, self.schedule.loss_weight(u.clamp(min=1e-9)) / self.duration(length), 0.0)

    def add_noise(self, x0: Tokens, t: NoiseTimes, *, rng: Rng) -> Tokens:
        return self.inside.add_noise(x0, self.local_times(t, x0.shape[1]), rng=rng)

    def log_likelihood(self, xt: Tokens, x0: Tokens, t: NoiseTimes) -> PerPosition:
        return self.inside.log_likelihood(xt, x0, self.local_times(t, x0.shape[1]))

    def forward_step(self, xs: Tokens, s: NoiseTimes, t: NoiseTimes, *, rng: Rng) -> Tokens:
        u, v = (self.schedule.alpha(self.local_times(time, xs.shape[1])) for time in (s, t))
        survives = rng.fork("survive").uniform(xs.shape[1]) * u < v
        return torch.where(survives, xs, self.mask)

    def posterior(self, xt: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes) -> ReverseStep:
        t, s = (self.local_times(time, xt.shape[1]) for time in (t, s))
        return self.inside.posterior(xt, prediction, t.clamp(min=1e-9), s)

    def kl(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, s: NoiseTimes, where: Mask) -> KLAndNLL:
        t, s = (self.local_times(time, xt.shape[1]) for time in (t, s))
        return self.inside.kl(xt, x0, prediction, t.clamp(min=1e-9), s, where)

    def kl_rate(self, xt: Tokens, x0: Tokens, prediction: Prediction, t: NoiseTimes, where: Mask) -> KLAndNLL:
        nll = prediction.nll(x0, where & self.is_noisy(xt))
        return self.loss_weight(t, xt.shape[1]) * nll, nll
