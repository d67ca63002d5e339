"""Noise schedules: t in [0, 1] to the amount of noise. t = 0 is clean, t = 1 is noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Times = Float[Tensor, "*b"]


@runtime_checkable
class AlphaSchedule(Protocol):
    """Survival probability alpha(t) of a token under an absorbing or uniform process."""

    def alpha(self, t: Times) -> Times: ...

    def mask_prob(self, t: Times) -> Times: ...

    def time(self, alpha: Times) -> Times: ...

    def loss_weight(self, t: Times) -> Times: ...


@dataclass(frozen=True)
class LogLinear:
    """alpha = 1 - (1 - eps) t: the masked share grows linearly (SEDD, section 5.1; `eps` = 0 is linear)."""

    eps: float = 1e-3

    def alpha(self, t: Times) -> Times:
        """Probability that a token is still clean at t."""
        return 1.0 - self.mask_prob(t)

    def mask_prob(self, t: Times) -> Times:
        """1 - alpha, exact where it is small."""
        return (1.0 - self.eps) * t

    def time(self, alpha: Times) -> Times:
        """The t at which the survival probability is `alpha`, cut to [0, 1]."""
        return ((1.0 - alpha) / (1.0 - self.eps)).clamp(0.0, 1.0)

    def loss_weight(self, t: Times) -> Times:
        """-alpha'(t) / (1 - alpha(t)), the weight of the masked bound: 1 / t."""
        return 1.0 / t


@dataclass(frozen=True)
class CosineMask:
    """alpha = 1 - cos(pi (1 - t) / 2): more masks than t, so that sampling reveals few at first (MD4, table 1)."""

    def alpha(self, t: Times) -> Times:
        """Probability that a token is still clean at t: 1 exactly at t = 0, and not rounded to 0 before t = 1."""
        angle = 0.5 * math.pi * (1.0 - t)
        return torch.where(t < 0.5, 1.0 - torch.cos(angle), 2.0 * torch.sin(0.5 * angle) ** 2)

    def mask_prob(self, t: Times) -> Times:
        """1 - alpha, exact where it is small."""
        return torch.sin(0.5 * math.pi * t)

    def time(self, alpha: Times) -> Times:
        """The t at which the survival probability is `alpha`."""
        return 1.0 - torch.acos((1.0 - alpha).clamp(0.0, 1.0)) * (2.0 / math.pi)

    def loss_weight(self, t: Times) -> Times:
        """-alpha'(t) / (1 - alpha(t)) = (pi / 2) cot(pi t / 2), a ratio of sines that keep their precision."""
        return 0.5 * math.pi * torch.sin(0.5 * math.pi * (1.0 - t)) / torch.sin(0.5 * math.pi * t)


@dataclass(frozen=True)
class Geometric:
    """alpha = exp(-sigma), sigma = low ((high / low)^t - 1): the total noise grows geometrically (SEDD, section 5.1).

    The paper's sigma is `low` more, which leaves a share `low` of noise at t = 0; here nothing is left to reconstruct.
    """

    low: float = 1e-4
    high: float = 20.0

    def _sigma(self, t: Times) -> Times:
        return self.low * torch.expm1(t * math.log(self.high / self.low))

    def alpha(self, t: Times) -> Times:
        """Probability that a token is still clean at t."""
        return torch.exp(-self._sigma(t))

    def mask_prob(self, t: Times) -> Times:
        """1 - alpha, exact where it is small."""
        return -torch.expm1(-self._sigma(t))

    def time(self, alpha: Times) -> Times:
        """The t at which the survival probability is `alpha`, cut to [0, 1]."""
        return (torch.log1p(-torch.log(alpha) / self.low) / math.log(self.high / self.low)).clamp(0.0, 1.0)

    def loss_weight(self, t: Times) -> Times:
        """-alpha'(t) / (1 - alpha(t)) = sigma'(t) / (exp(sigma) - 1)."""
        sigma = self._sigma(t)
        return (sigma + self.low) * math.log(self.high / self.low) / torch.expm1(sigma)


@runtime_checkable
class SigmaSchedule(Protocol):
    """Noise level sigma(t) of the variance-exploding frame x = x0 + sigma eps."""

    def sigma(self, t: Times) -> Times: ...

    def time(self, sigma: Times) -> Times: ...


@dataclass(frozen=True)
class LogSigma:
    """ln sigma linear in t."""

    low: float
    high: float

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        return torch.exp(math.log(self.low) + t * math.log(self.high / self.low))

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        return torch.log(sigma / self.low) / math.log(self.high / self.low)


class LearnedSigma(nn.Module):
    """ln sigma linear in t between ends that are learned (Plaid, section 4.2)."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.ends = nn.Parameter(torch.tensor((math.log(low), math.log(high))))

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        return torch.exp(self.ends[0] + t * (self.ends[1] - self.ends[0]))

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        return (torch.log(sigma) - self.ends[0]) / (self.ends[1] - self.ends[0])


@dataclass(frozen=True)
class Karras:
    """sigma^(1/rho) linear in t (EDM, eq. 5); rho = 1 is linear in sigma (CDCD's time)."""

    low: float
    high: float
    rho: float = 7.0

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        low, high = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        low, high = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - low) / (high - low)


@dataclass(frozen=True)
class CosineNoise:
    """alpha-bar = cos^2(pi (t + c) / (2 (1 + c))), so sigma is its tangent; cut to [low, high], finite at t = 1."""

    low: float
    high: float
    c: float = 2e-4

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        angle = (t + self.c) / (1.0 + self.c) * (0.5 * math.pi)
        # Cut before the tangent: a float32 angle rounded past a right angle has a negative one.
        return torch.tan(angle.clamp(math.atan(self.low), math.atan(self.high)))

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        return (torch.atan(sigma) * (2.0 / math.pi) * (1.0 + self.c) - self.c).clamp(0.0, 1.0)


@dataclass(frozen=True)
class SqrtNoise:
    """alpha-bar = 1 - sqrt(t + c) (Diffusion-LM, section 4.1), cut to [low, high]; below 0 near t = 1 it is noise."""

    low: float
    high: float
    c: float = 1e-4

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        share = torch.sqrt(t + self.c).clamp(max=1.0 - 2.0**-24)  # finite, so that its slope is 0 beyond and not NaN
        return torch.sqrt(share / (1.0 - share)).clamp(self.low, self.high)

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        share = sigma**2 / (1.0 + sigma**2)
        return (share**2 - self.c).clamp(0.0, 1.0)


@dataclass(frozen=True)
class LinearBeta:
    """alpha-bar = exp(-(beta0 t + (beta1 - beta0) t^2 / 2)) (Song et al. 2021, eq. 33), cut to [low, high]."""

    low: float
    high: float
    beta0: float = 0.1
    beta1: float = 20.0

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        integral = self.beta0 * t + 0.5 * (self.beta1 - self.beta0) * t**2
        return torch.sqrt(torch.expm1(integral).clamp(self.low**2, self.high**2))

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        integral, slope = torch.log1p(sigma**2), self.beta1 - self.beta0
        return ((torch.sqrt(self.beta0**2 + 2.0 * slope * integral) - self.beta0) / slope).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Rescaled:
    """Another schedule's sigma times a factor: a shift of ln sigma (Difformer's noise rescaling, section 3.4)."""

    schedule: SigmaSchedule
    sigma_scale: float

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        return self.sigma_scale * self.schedule.sigma(t)

    def time(self, sigma: Times) -> Times:
        """The t of a noise level."""
        return self.schedule.time(sigma / self.sigma_scale)


Betas = Literal["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"]


MAX_BETA = 0.999


class DiscreteBetaSchedule(nn.Module):
    """sigma_i = sqrt(1 / abar_i - 1) with abar_i = (1 - beta_0) ... (1 - beta_i), at t = i / (steps - 1).

    The betas are those of DDPM's descendants (Nichol & Dhariwal 2021, section 3.2; Diffusion-LM, section 4.1). Between
    the points of the grid ln sigma is linear in t, so sampling with fewer steps is the same table, read at fewer times.
    `scale` is the root mean square of a coordinate of clean states, which the papers have as 1.
    """

    log_sigma: Float[Tensor, " n"]

    def __init__(self, betas: Betas, steps: int = 2000, scale: float = 1.0) -> None:
        super().__init__()
        log_alpha_bar = torch.log1p(-torch.tensor(_betas(betas, steps), dtype=torch.float64, device="cpu")).cumsum(0)
        log_sigma = 0.5 * torch.log(torch.expm1(-log_alpha_bar)) + math.log(scale)
        self.low, self.high = float(log_sigma[0].exp()), float(log_sigma[-1].exp())
        self.register_buffer("log_sigma", log_sigma.float(), persistent=False)

    def sigma(self, t: Times) -> Times:
        """Noise level at t."""
        table, last = self.log_sigma.to(t.dtype), len(self.log_sigma) - 1
        at = t * last
        i = at.detach().long().clamp(0, last - 1)
        return torch.exp(table[i] + (at - i) * (table[i + 1] - table[i]))

    def time(self, sigma: Times) -> Times:
        """The t of a noise level, cut to [0, 1]."""
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
    """1 - abar(t_{i+1}) / abar(t_i), at most MAX_BETA: also where abar falls below 0, as that of `sqrt` does at 1."""
    steps = [1.0 - alpha_bar((i + 1) / n) / alpha_bar(i / n) for i in range(n - jump)]
    return [min(beta, MAX_BETA) for beta in ([1.0 - alpha_bar(0.0)] if jump else []) + steps]
