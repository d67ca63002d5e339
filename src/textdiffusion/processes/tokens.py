"""What the processes over token ids share."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..prediction import Prediction
from ..randomness import Rng
from .graphs import Jumps
from .schedules import MaskSchedule


class TokenProcess(nn.Module):
    """A process whose steps back are jumps of single positions."""

    two_sided: ClassVar[bool] = True  # predictions see what stands before and after a position

    schedule: MaskSchedule

    def prior(self, like: Int[Tensor, "b l"], *, rng: Rng) -> Int[Tensor, "b l"]:
        """Pure noise."""
        raise NotImplementedError

    def advance(
        self, xs: Int[Tensor, "b l"], s: Float[Tensor, "b *l"], t: Float[Tensor, "b *l"], *, rng: Rng
    ) -> Int[Tensor, "b l"]:
        """A draw of x_t given x_s, t >= s: what is there survives with probability alpha_t / alpha_s."""
        alpha = self._over(self.schedule.alpha(t) / self.schedule.alpha(s), xs)
        survive = rng.fork("survive").uniform(xs.shape[1]) < alpha
        return torch.where(survive, xs, self.prior(xs, rng=rng.fork("token")))

    def posterior(
        self, xt: Int[Tensor, "b l"], prediction: Prediction, t: Float[Tensor, "b *l"], s: Float[Tensor, "b *l"]
    ) -> Jumps:
        """p(x_s | x_t) for s < t, q(x_s | x_t, x_0) averaged over p(x_0 | x_t)."""
        raise NotImplementedError

    def reverse(
        self,
        xt: Int[Tensor, "b l"],
        prediction: Prediction,
        t: Float[Tensor, "b *l"],
        s: Float[Tensor, "b *l"],
        *,
        rng: Rng,
    ) -> Int[Tensor, "b l"]:
        """A draw of x_s from the posterior."""
        return self.posterior(xt, prediction, t, s).draw(xt, rng=rng)

    @staticmethod
    def _over(value: Tensor, x: Tensor) -> Tensor:
        """A value of every row or position, to combine with states."""
        return value if value.ndim == x.ndim else value[:, None]
