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
from ..diffusion.densities import stratified
from ..diffusion.model import Model
from ..diffusion.process import TokenProcess
from ..diffusion.uniform import UniformProcess
from .base import Loss, corrupted, drawn_times, per_token


class ChainBound(nn.Module):
    """sum over i of KL(q(x_s | x_t, x_0) || p(x_s | x_t)), s = (i - 1) / T, t = i / T (D3PM, eq. 1), nats per token.

    With `steps` T = 0 time is continuous (UDLM, eq. 18). `cross_entropy` adds so much of -log p(x_0 | x_t) of the
    positions that may still change (D3PM, eq. 5).
    """

    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __init__(self, steps: int = 0, cross_entropy: float = 0.0) -> None:
        super().__init__()
        self.steps, self.cross_entropy = steps, cross_entropy

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        t = drawn_times(model, batch, rng=rng)
        nats, surprise = chain_nats(model, batch, t, self.steps, rng)
        bound = per_token(nats * torch.exp(-model.density.log_prob(t)), batch).mean()
        parts = {"bound": bound.detach()}
        if not self.cross_entropy:
            return Loss(bound, parts)
        extra = per_token(surprise, batch).mean()
        return Loss(bound + self.cross_entropy * extra, parts | {"cross_entropy": extra.detach()})


class ChainLikelihood(nn.Module):
    """The same bound for evaluation, with what the chain's end costs: an upper bound on -log p(x), nats per row.

    The beginning costs nothing more: at alpha(0) = 1 the last step says -log p(x_0 | x_t) itself. Few tokens are noise
    at small t, and then cost 1 / t: that the variance be finite, a quarter of the draws has the density 1 / (2 sqrt t).
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (TokenProcess,)

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; t is stratified over the rows."""
        u = stratified(rng.fork("t"), batch.total or len(batch.ids))
        t = torch.where(u < 0.25, (4.0 * u) ** 2, (4.0 * u - 1.0) / 3.0).clamp(2.0**-24, 1.0 - 2.0**-24)
        nats, _ = chain_nats(model, batch, t, self.steps, rng)
        return nats / (0.75 + 0.125 * torch.rsqrt(t)) + prior_nats(model, batch, rng)


def prior_nats(model: Model, batch: Batch, rng: Rng) -> Float[Tensor, " b"]:
    """What the chain's end costs, nats per row: sampling starts from noise alone, and a share alpha(1) survives it."""

    def first() -> Tensor:
        x1 = torch.where(batch.noised, model.process.prior(batch.ids, rng=rng.fork("prior")), batch.ids)
        t = torch.ones(len(x1), device=x1.device)
        return model.denoiser(x1, t, batch=batch).nll(batch.ids, batch.noised)

    return (model.process.graph.prior_nats(batch.ids, first) * batch.noised).sum(-1)


def chain_nats(
    model: Model, batch: Batch, t: Float[Tensor, " b"], steps: int, rng: Rng
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Nats per unit of time near t, of every row, and -log p(x_0 | x_t) of its positions that may still change.

    With `steps`, t is moved to the end of the step that it lies in.
    """
    late = (t * steps).ceil().clamp(min=1.0)
    t = late / steps if steps else t
    xt = corrupted(model, batch.ids, t, batch, rng=rng.fork("noise"))
    prediction = model.denoiser(xt, t, batch=batch)
    if steps:
        nats, surprise = model.process.divergence(xt, batch.ids, prediction, t, (late - 1.0) / steps, batch.noised)
        nats = nats * steps
    else:
        nats, surprise = model.process.divergence_rate(xt, batch.ids, prediction, t, batch.noised)
    return nats.sum(-1), surprise.sum(-1)


class Duality(nn.Module):
    """The uniform bound on soft inputs for the first `steps` steps of training, then the bound itself.

    The argmax of w = (a x_0 + eps) / sqrt(1 + a^2), eps normal, is x_t of the uniform process. The network is shown
    softmax(w / tau) instead, which lets more through of x_0; tau falls geometrically from `warm` to `cold`. Then the
    loss is no bound. The buffer `done` counts the steps of the optimizer.
    """

    processes: ClassVar[tuple[type, ...]] = (UniformProcess,)

    def __init__(self, steps: int, warm: float, cold: float) -> None:
        super().__init__()
        self.bound = ChainBound()
        self.steps, self.warm, self.cold = steps, warm, cold
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    def settle(self) -> None:
        """Counts a step."""
        self.done += 1

    def forward(self, model: Model, batch: Batch, *, rng: Rng) -> Loss:
        """One draw of t per row, stratified over the global batch."""
        done = int(self.done)
        if done >= self.steps:
            return self.bound(model, batch, rng=rng)
        process, length = model.process, batch.ids.shape[1]
        t = drawn_times(model, batch, rng=rng)
        a = signal(process.schedule.alpha(t), process.vocab)[:, None, None]
        clean = F.one_hot(batch.ids, process.vocab).float()
        w = (a * clean + rng.fork("noise").normal(length, process.vocab)) * torch.rsqrt(1.0 + a**2)
        tau = self.warm * (self.cold / self.warm) ** (done / self.steps)
        soft = torch.where(batch.noised[..., None], torch.softmax(w / tau, dim=-1), clean)
        xt = torch.where(batch.noised, w.argmax(-1), batch.ids)
        prediction = model.denoiser.softened(soft, xt, t, batch=batch)
        nats = process.divergence_rate(xt, batch.ids, prediction, t, batch.noised)[0].sum(-1)
        total = per_token(nats * torch.exp(-model.density.log_prob(t)), batch).mean()
        return Loss(total, {"curriculum": total.detach()})


def signal(alpha: Float[Tensor, " b"], vocab: int) -> Float[Tensor, " b"]:
    """The a at which argmax(a x_0 + eps) is x_0, beyond chance, with probability alpha (Duo, eq. 10)."""
    (grid, alphas), wanted = _signals(vocab), alpha.cpu().double()  # some devices have no float64
    above = torch.searchsorted(alphas, wanted).clamp(1, len(grid) - 1)
    low, high = alphas[above - 1], alphas[above]
    share = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
    return torch.lerp(grid[above - 1], grid[above], share).float().to(alpha.device)


@lru_cache(maxsize=4)
def _signals(vocab: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Values of a and their alpha = (K P - 1) / (K - 1), P = E_e[Phi(e + a)^(K - 1)], by the trapezoidal rule."""
    a, e = torch.linspace(0.0, 12.0, 1201, dtype=torch.float64), torch.linspace(-9.0, 9.0, 1801, dtype=torch.float64)
    normal = torch.exp(-0.5 * e**2)
    won = torch.exp((vocab - 1) * torch.special.log_ndtr(e + a[:, None])) @ (normal / normal.sum())
    return a, ((vocab * won - 1.0) / (vocab - 1)).clamp(0.0, 1.0)
