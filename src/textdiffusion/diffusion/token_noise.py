"""The processes whose noise is tokens: what they have in common."""

from __future__ import annotations

import torch

from ..core.randomness import Rng
from ..core.types import Mask, NoiseTimes, Tokens, Values
from .prediction import Prediction
from .process import TokenProcess


class TokenNoiseProcess(TokenProcess):
    """A process whose noise is tokens: a token survives with probability alpha(t), else the prior replaces it."""

    def time_conditioning(self, t: Values) -> Values:
        return self.schedule.mask_prob(t)

    def add_noise(self, x0: Tokens, t: NoiseTimes, *, rng: Rng) -> Tokens:
        survives = rng.fork("survive").uniform(x0.shape[1]) < self._per_position(self.schedule.alpha(t), x0)
        return torch.where(survives, x0, self.sample_prior(x0, rng=rng.fork("token")))

    def is_noisy(self, xt: Tokens) -> Mask:
        return torch.ones_like(xt, dtype=torch.bool)

    def leave_one_out(self, xt: Tokens, prediction: Prediction, t: NoiseTimes) -> Prediction:
        """p(x_0 at a position | x_t at all other positions), the leave-one-out prediction.

        The reverse step and the bounds of this process are simple in it. It is the output x_theta of UDLM and Duo.
        """
        log_odds = self.self_log_odds(xt, t)
        assert log_odds is not None
        return Prediction(prediction.logits.scatter_add(-1, xt[..., None], -log_odds[..., None]))
