"""The curriculum of Gaussian duality: uniform noise as the argmax of Gaussian noise (Sahoo et al. 2025, Duo)."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..batch import Batch
from ..model import Model
from ..processes.uniform import UniformProcess
from ..randomness import Rng
from . import Loss, drawn_times, per_token
from .chain_bound import ChainBound


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
