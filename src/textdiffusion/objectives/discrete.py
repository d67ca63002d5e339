"""The likelihood bound of a Markov chain over token ids, in discrete or continuous time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import PerRow, Times, Tokens
from ..diffusion.model import DiffusionModel
from ..diffusion.process import TokenProcess
from ..diffusion.uniform import UniformProcess
from .base import Likelihood, Loss, Objective, add_noise, per_token, sample_times, stratified_uniforms


@dataclass(frozen=True)
class DiscreteELBO(Objective):
    """sum over i of KL(q(x_s | x_t, x_0) || p(x_s | x_t)), s = (i - 1) / T, t = i / T (D3PM, eq. 1), nats per token.

    T is `steps`; 0 means continuous time (UDLM, eq. 18). `cross_entropy` is the weight of an extra -log p(x_0 | x_t) at
    the positions that may still change (D3PM, eq. 5).
    """

    steps: int = 0
    cross_entropy: float = 0.0

    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, steps=(0, None), cross_entropy=(0.0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        t = sample_times(model, batch, rng=rng)
        nats, nll = chain_nats(model, batch, t, self.steps, rng)
        bound = per_token(nats * torch.exp(-model.time_density.log_prob(t)), batch).mean()
        parts = {"bound": bound.detach()}
        if not self.cross_entropy:
            return Loss(bound, parts)
        cross_entropy = per_token(nll, batch).mean()
        total = bound + self.cross_entropy * cross_entropy
        return Loss(total, parts | {"cross_entropy": cross_entropy.detach()})


@dataclass(frozen=True)
class DiscreteLikelihood(Likelihood):
    """`DiscreteELBO` for evaluation, with the prior's KL: an upper bound on -log p(x), nats per row.

    There is no reconstruction term: at alpha(0) = 1 the last step is -log p(x_0 | x_t) itself. At small t few tokens
    are noisy, and each then costs 1 / t; to keep the variance finite, a quarter of the times has the density
    1 / (2 sqrt t).
    """

    steps: int = 0

    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, steps=(0, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One unbiased estimate per row; t is stratified over the rows."""
        u = stratified_uniforms(batch, rng=rng.fork("t"))
        t = torch.where(u < 0.25, (4.0 * u) ** 2, (4.0 * u - 1.0) / 3.0).clamp(2.0**-24, 1.0 - 2.0**-24)
        nats, _ = chain_nats(model, batch, t, self.steps, rng)
        return nats / (0.75 + 0.125 * torch.rsqrt(t)) + prior_kl(model, batch, rng)


def prior_kl(model: DiffusionModel, batch: Batch, rng: Rng) -> PerRow:
    """KL of q(x_1 | x_0) from the prior, nats per row: sampling starts from pure noise, but alpha(1) of x_0 is left."""

    def first_step_nll() -> Tensor:
        prior = model.process.sample_prior(batch.tokens, rng=rng.fork("prior"))
        x1 = torch.where(batch.target_mask, prior, batch.tokens)
        t = torch.ones(len(x1), device=x1.device)
        return model.denoiser(x1, t, batch=batch).nll(batch.tokens, batch.target_mask)

    return (model.process.graph.prior_kl(batch.tokens, first_step_nll) * batch.target_mask).sum(-1)


def chain_nats(model: DiffusionModel, batch: Batch, t: Times, steps: int, rng: Rng) -> tuple[PerRow, PerRow]:
    """The chain's KL in nats per unit of time at t, and -log p(x_0 | x_t) where tokens may still change, per row.

    With `steps`, t is moved to the end of its step.
    """
    step = (t * steps).ceil().clamp(min=1.0)
    t = step / steps if steps else t
    xt = add_noise(model, batch.tokens, t, batch, rng=rng.fork("noise"))
    prediction = model.denoiser(xt, t, batch=batch)
    if steps:
        nats, nll = model.process.kl(xt, batch.tokens, prediction, t, (step - 1.0) / steps, batch.target_mask)
        nats = nats * steps
    else:
        nats, nll = model.process.kl_rate(xt, batch.tokens, prediction, t, batch.target_mask)
    return nats.sum(-1), nll.sum(-1)


@dataclass(frozen=True)
class Duality(Objective):
    """The uniform bound on softened inputs for the first `steps` training steps, then the bound itself (Duo).

    The argmax of w = (a x_0 + eps) / sqrt(1 + a^2), eps normal, is distributed as x_t of the uniform process. The
    network sees softmax(w / tau) instead, which reveals more of x_0; tau falls geometrically from `tau_start` to
    `tau_end`. Until then the loss is not a bound.
    """

    steps: int = 2500
    tau_start: float = 0.1
    tau_end: float = 1e-3

    processes: ClassVar[tuple[type, ...]] = (UniformProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, steps=(0, None), tau_end=(1e-6, None), tau_start=(self.tau_end, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One t per row, stratified over the global batch."""
        step = int(model.step)
        if step >= self.steps:
            return DiscreteELBO()(model, batch, rng=rng)
        process, length = model.process, batch.tokens.shape[1]
        t = sample_times(model, batch, rng=rng)
        w = gaussian_state(process, batch.tokens, rng.fork("noise").normal(length, process.vocab_size), t)
        tau = self.tau_start * (self.tau_end / self.tau_start) ** (step / self.steps)
        x0 = F.one_hot(batch.tokens, process.vocab_size).float()
        soft = torch.where(batch.target_mask[..., None], torch.softmax(w / tau, dim=-1), x0)
        xt = torch.where(batch.target_mask, w.argmax(-1), batch.tokens)
        prediction = model.denoiser.forward_soft(soft, xt, t, batch=batch)
        nats = process.kl_rate(xt, batch.tokens, prediction, t, batch.target_mask)[0].sum(-1)
        total = per_token(nats * torch.exp(-model.time_density.log_prob(t)), batch).mean()
        return Loss(total, {"curriculum": total.detach()})


def gaussian_state(
    process: UniformProcess, tokens: Tokens, eps: Float[Tensor, "b l v"], t: Times
) -> Float[Tensor, "b l v"]:
    """(a x_0 + eps) / sqrt(1 + a^2), whose argmax is distributed as x_t of the uniform process if eps is normal."""
    a = signal_strength(process.schedule.alpha(t), process.vocab_size)[:, None, None]
    return (a * F.one_hot(tokens, process.vocab_size).float() + eps) * torch.rsqrt(1.0 + a**2)


def signal_strength(alpha: PerRow, vocab_size: int) -> PerRow:
    """The a at which argmax(a x_0 + eps) keeps the token, beyond chance, with probability alpha (Duo, eq. 10)."""
    (strengths, alphas), alpha64 = _signal_table(vocab_size), alpha.cpu().double()  # some devices have no float64
    above = torch.searchsorted(alphas, alpha64).clamp(1, len(strengths) - 1)
    low, high = alphas[above - 1], alphas[above]
    fraction = ((alpha64 - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
    return torch.lerp(strengths[above - 1], strengths[above], fraction).float().to(alpha.device)


@lru_cache(maxsize=4)
def _signal_table(vocab_size: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Values of a and their alpha = (K P - 1) / (K - 1), P = E_e[Phi(e + a)^(K - 1)], by the trapezoidal rule."""
    a, e = torch.linspace(0.0, 12.0, 1201, dtype=torch.float64), torch.linspace(-9.0, 9.0, 1801, dtype=torch.float64)
    normal = torch.exp(-0.5 * e**2)
    p = torch.exp((vocab_size - 1) * torch.special.log_ndtr(e + a[:, None])) @ (normal / normal.sum())
    return a, ((vocab_size * p - 1.0) / (vocab_size - 1)).clamp(0.0, 1.0)
