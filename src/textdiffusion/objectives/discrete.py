"""The likelihood bound of a Markov chain over token ids, in steps or in continuous time."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.densities import low_discrepancy
from ..diffusion.model import DiffusionModel
from ..diffusion.process import TokenProcess
from ..diffusion.uniform import UniformProcess
from .base import Loss, add_noise, per_token, sample_times


class DiscreteELBO(nn.Module):
    """sum over i of KL(q(x_s | x_t, x_0) || p(x_s | x_t)), s = (i - 1) / T, t = i / T (D3PM, eq. 1), nats per token.

    With `steps` T = 0 time is continuous (UDLM, eq. 18). `cross_entropy` adds so much of -log p(x_0 | x_t) of the
    positions that may still change (D3PM, eq. 5).
    """

    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __init__(self, steps: int = 0, cross_entropy: float = 0.0) -> None:
        super().__init__()
        self.steps, self.cross_entropy = steps, cross_entropy

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        t = sample_times(model, batch, rng=rng)
        nats, surprise = discrete_nats(model, batch, t, self.steps, rng)
        bound = per_token(nats * torch.exp(-model.time_density.log_prob(t)), batch).mean()
        parts = {"bound": bound.detach()}
        if not self.cross_entropy:
            return Loss(bound, parts)
        extra = per_token(surprise, batch).mean()
        return Loss(bound + self.cross_entropy * extra, parts | {"cross_entropy": extra.detach()})


class DiscreteLikelihood(nn.Module):
    """The same bound for evaluation, with what the chain's end costs: an upper bound on -log p(x), nats per row.

    The beginning costs nothing more: at alpha(0) = 1 the last step says -log p(x_0 | x_t) itself. Few tokens are noise
    at small t, and then cost 1 / t: that the variance be finite, a quarter of the draws has the density 1 / (2 sqrt t).
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; t is stratified over the rows."""
        u = low_discrepancy(rng.fork("t"), batch.global_batch_size or len(batch.tokens))
        t = torch.where(u < 0.25, (4.0 * u) ** 2, (4.0 * u - 1.0) / 3.0).clamp(2.0**-24, 1.0 - 2.0**-24)
        nats, _ = discrete_nats(model, batch, t, self.steps, rng)
        return nats / (0.75 + 0.125 * torch.rsqrt(t)) + prior_kl(model, batch, rng)


def prior_kl(model: DiffusionModel, batch: Batch, rng: Rng) -> Float[Tensor, " b"]:
    """What the chain's end costs, nats per row: sampling starts from noise alone, and a share alpha(1) survives it."""

    def first() -> Tensor:
        x1 = torch.where(
            batch.target_mask, model.process.sample_prior(batch.tokens, rng=rng.fork("prior")), batch.tokens
        )
        t = torch.ones(len(x1), device=x1.device)
        return model.denoiser(x1, t, batch=batch).nll(batch.tokens, batch.target_mask)

    return (model.process.graph.prior_kl(batch.tokens, first) * batch.target_mask).sum(-1)


def discrete_nats(
    model: DiffusionModel, batch: Batch, t: Float[Tensor, " b"], steps: int, rng: Rng
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Nats per unit of time near t, of every row, and -log p(x_0 | x_t) of its positions that may still change.

    With `steps`, t is moved to the end of the step that it lies in.
    """
    late = (t * steps).ceil().clamp(min=1.0)
    t = late / steps if steps else t
    xt = add_noise(model, batch.tokens, t, batch, rng=rng.fork("noise"))
    prediction = model.denoiser(xt, t, batch=batch)
    if steps:
        nats, surprise = model.process.kl(xt, batch.tokens, prediction, t, (late - 1.0) / steps, batch.target_mask)
        nats = nats * steps
    else:
        nats, surprise = model.process.kl_rate(xt, batch.tokens, prediction, t, batch.target_mask)
    return nats.sum(-1), surprise.sum(-1)


class Duality(nn.Module):
    """The uniform bound on soft inputs for the first `steps` steps of training, then the bound itself.

    The argmax of w = (a x_0 + eps) / sqrt(1 + a^2), eps normal, is x_t of the uniform process. The network is shown
    softmax(w / tau) instead, which lets more through of x_0; tau falls geometrically from `warm` to `cold`. Then the
    loss is not a bound.
    """

    processes: ClassVar[tuple[type, ...]] = (UniformProcess,)

    def __init__(self, steps: int, warm: float, cold: float) -> None:
        super().__init__()
        self.bound = DiscreteELBO()
        self.steps, self.tau_start, self.tau_end = steps, warm, cold

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        done = int(model.step)
        if done >= self.steps:
            return self.bound(model, batch, rng=rng)
        process, length = model.process, batch.tokens.shape[1]
        t = sample_times(model, batch, rng=rng)
        a = signal(process.schedule.alpha(t), process.vocab_size)[:, None, None]
        clean = F.one_hot(batch.tokens, process.vocab_size).float()
        w = (a * clean + rng.fork("noise").normal(length, process.vocab_size)) * torch.rsqrt(1.0 + a**2)
        tau = self.tau_start * (self.tau_end / self.tau_start) ** (done / self.steps)
        soft = torch.where(batch.target_mask[..., None], torch.softmax(w / tau, dim=-1), clean)
        xt = torch.where(batch.target_mask, w.argmax(-1), batch.tokens)
        prediction = model.denoiser.forward_soft(soft, xt, t, batch=batch)
        nats = process.kl_rate(xt, batch.tokens, prediction, t, batch.target_mask)[0].sum(-1)
        total = per_token(nats * torch.exp(-model.time_density.log_prob(t)), batch).mean()
        return Loss(total, {"curriculum": total.detach()})


def signal(alpha: Float[Tensor, " b"], vocab_size: int) -> Float[Tensor, " b"]:
    """The a at which argmax(a x_0 + eps) is x_0, beyond chance, with probability alpha (Duo, eq. 10)."""
    (grid, alphas), wanted = _signals(vocab_size), alpha.cpu().double()  # some devices have no float64
    above = torch.searchsorted(alphas, wanted).clamp(1, len(grid) - 1)
    low, high = alphas[above - 1], alphas[above]
    share = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
    return torch.lerp(grid[above - 1], grid[above], share).float().to(alpha.device)


@lru_cache(maxsize=4)
def _signals(vocab_size: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Values of a and their alpha = (K P - 1) / (K - 1), P = E_e[Phi(e + a)^(K - 1)], by the trapezoidal rule."""
    a, e = torch.linspace(0.0, 12.0, 1201, dtype=torch.float64), torch.linspace(-9.0, 9.0, 1801, dtype=torch.float64)
    normal = torch.exp(-0.5 * e**2)
    won = torch.exp((vocab_size - 1) * torch.special.log_ndtr(e + a[:, None])) @ (normal / normal.sum())
    return a, ((vocab_size * won - 1.0) / (vocab_size - 1)).clamp(0.0, 1.0)
