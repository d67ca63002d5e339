"""The discrete noise levels of DDPM, as a table of sigma."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.registry import build, builds, check_bounds
from ..core.types import Values
from .sigma_schedules import NoiseSchedule, SigmaSchedule

Betas = Literal["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"]

MAX_BETA = 0.999


@dataclass(frozen=True)
class DiscreteBetas(SigmaSchedule):
    """DDPM's grid of `steps` noise levels, computed from the steps' `betas`, in units of a clean state's coordinates.

    Training sees these levels alone; sampling may take fewer steps.
    """

    betas: Betas = "sqrt"
    steps: int = 2000

    def __post_init__(self) -> None:
        check_bounds(self, steps=(20, None))

    @property
    def num_levels(self) -> int:
        return self.steps

    def scaled(self, norm: float, dim: int) -> NoiseSchedule:
        return build(self, scale=norm / math.sqrt(dim))


@builds(DiscreteBetas)
class DiscreteBetaSchedule(nn.Module):
    """sigma_i = sqrt(1 / abar_i - 1) with abar_i = (1 - beta_0) ... (1 - beta_i), at t = i / (steps - 1).

    The betas are those of DDPM's descendants (Nichol & Dhariwal 2021, section 3.2; Diffusion-LM, section 4.1). Between
    the points of the grid ln sigma is linear in t, so sampling with fewer steps reads the same table at fewer times.
    `scale` is the root mean square of a coordinate of clean states, which is 1 in the papers.
    """

    log_sigma: Float[Tensor, " n"]

    def __init__(self, betas: Betas, steps: int = 2000, scale: float = 1.0) -> None:
        super().__init__()
        self.num_levels = steps
        log_alpha_bar = torch.log1p(-torch.tensor(_betas(betas, steps), dtype=torch.float64, device="cpu")).cumsum(0)
        log_sigma = 0.5 * torch.log(torch.expm1(-log_alpha_bar)) + math.log(scale)
        self.register_buffer("log_sigma", log_sigma.float(), persistent=False)

    def sigma(self, t: Values) -> Values:
        """Noise level at t."""
        table, last = self.log_sigma.to(t.dtype), len(self.log_sigma) - 1
        position = t * last
        i = position.detach().long().clamp(0, last - 1)
        return torch.exp(table[i] + (position - i) * (table[i + 1] - table[i]))

    def time(self, sigma: Values) -> Values:
        """The t of a noise level, clipped to [0, 1]."""
        table, last = self.log_sigma.to(sigma.dtype), len(self.log_sigma) - 1
        value = torch.log(sigma).contiguous()
        i = torch.searchsorted(table, value, right=True).sub(1).clamp(0, last - 1)
        return ((i + (value - table[i]) / (table[i + 1] - table[i])) / last).clamp(0.0, 1.0)


def _betas(name: Betas, n: int) -> list[float]:
    per_step = 1000.0 / n  # betas are stated for a thousand steps
    match name:
        case "linear":
            return _line(1e-4 * per_step, 0.02 * per_step, n)
        case "trunc_lin":
            return _line(1e-4 * per_step + 0.01, 0.02 * per_step + 0.01, n)
        case "pw_lin":  # ten large steps first
            middle = 1e-4 * per_step
            return _line(middle + 0.01, middle, 10) + _line(middle, 0.02 * per_step, n - 10)
        case "cosine":
            return _from_alpha_bar(lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2, n)
        case "sqrt":
            return _from_alpha_bar(lambda t: 1.0 - math.sqrt(t + 1e-4), n)
        case "trunc_cos":  # the first step jumps to abar(0)
            return _from_alpha_bar(lambda t: math.cos((t + 0.1) / 1.1 * math.pi / 2) ** 2, n, jump=True)


def _line(first: float, last: float, n: int) -> list[float]:
    return [min(first + (last - first) * i / (n - 1), MAX_BETA) for i in range(n)]


def _from_alpha_bar(alpha_bar: Callable[[float], float], n: int, jump: bool = False) -> list[float]:
    """1 - abar(t_{i+1}) / abar(t_i), at most MAX_BETA, also where abar falls below 0, as that of `sqrt` does at 1."""
    betas = [1.0 - alpha_bar((i + 1) / n) / alpha_bar(i / n) for i in range(n - jump)]
    return [min(beta, MAX_BETA) for beta in ([1.0 - alpha_bar(0.0)] if jump else []) + betas]
