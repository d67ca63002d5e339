"""How well a model predicts at every noise level: cross-entropy against noise (CDCD, figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model import Model
from ..objectives.noised import predicted
from ..processes.absorbing import AbsorbingProcess
from ..processes.gaussian import GaussianProcess
from ..processes.uniform import UniformProcess
from ..randomness import Rng
from ..samplers.grids import tuned_times
from .likelihood import Windows


@dataclass(frozen=True)
class NoiseCurve:
    """Cross-entropy in nats per noised token at `noise`: sigma of a Gaussian process, else the share of noised tokens.

    `fitted` is the curve that the run's noise density learned in training, at the same noise (None: it has none); it is
    of another loss where the objective has no cross-entropy.
    """

    sigma: bool
    noise: Float[np.ndarray, " n"]
    nats: Float[np.ndarray, " n"]
    fitted: Float[np.ndarray, " n"] | None


@torch.no_grad()
def noise_curve(
    model: Model,
    windows: Windows,
    *,
    levels: int = 48,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> NoiseCurve:
    """The mean over `windows` at `levels` noise levels, half of them spread evenly over t and half over the
    run's sampling grid. A denoiser with self-conditioning sees its own first estimate, as in sampling.

    Raises UserError for a process without noise levels.
    """
    process: Any = model.process
    if not isinstance(process, (GaussianProcess, AbsorbingProcess, UniformProcess)):
        raise UserError(f"A {type(process).__name__} has no noise levels, so there is no curve to draw.")
    device = next(model.parameters()).device
    batch = replace(windows.windows(range(len(windows))), rows=torch.arange(len(windows))).to(device)
    assert batch.rows is not None
    clean, free = model.codec.encode(batch.ids), batch.noised
    counts = levels // 2, levels - levels // 2
    even, own = ((torch.arange(count, device=device) + 0.5) / count for count in counts)
    times = torch.cat((even, model.density.grid(own))).sort().values
    sums = []
    for number, time in enumerate(times):
        t = time.expand(len(clean))
        noisy = process.corrupt(clean, t, rng=Rng.of(seed, batch.rows).fork("noise curve").fork(number))
        if isinstance(process, GaussianProcess):
            where, xt = free, torch.where(free[..., None], noisy, clean)
        else:
            where, xt = process.changing(noisy) & free, torch.where(free, noisy, clean)
        nats = predicted(model, xt, t, batch).nll(batch.ids, where)
        sums.append(torch.stack((nats.sum(), where.sum())))
        if progress:
            progress((number + 1) / len(times))
    nats, counted = torch.stack(sums).unbind(-1)
    kept = counted > 0
    fitted = model.density.fitted(times)
    gaussian = isinstance(process, GaussianProcess)
    noise = process.sigma(times) if gaussian else 1.0 - process.schedule.alpha(times)
    return NoiseCurve(
        gaussian,
        noise[kept].cpu().double().numpy(),
        (nats / counted)[kept].cpu().double().numpy(),
        None if fitted is None else fitted[kept].cpu().double().numpy(),
    )


def tuned_grid(
    model: Model,
    windows: Windows,
    *,
    levels: int = 48,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Float[Tensor, " k"]:
    """The sampling grid on which cross-entropy on `windows` rises evenly, see `tuned_times`; `Model.tuned` holds it.

    Raises UserError for a process that is not Gaussian.
    """
    process: Any = model.process
    if not isinstance(process, GaussianProcess):
        raise UserError(f"Grids are tuned for Gaussian processes; this run has an {type(process).__name__}.")
    curve = noise_curve(model, windows, levels=levels, seed=seed, progress=progress)
    low, high = process.sigma(torch.tensor((0.0, 1.0), device=next(model.parameters()).device)).cpu()
    sigma = torch.from_numpy(curve.noise).float().clamp(low, high)
    nats = torch.from_numpy(curve.nats)
    sigma, nats = (torch.cat((a[None], v, b[None])) for a, v, b in ((low, sigma, high), (nats[0], nats, nats[-1])))
    return tuned_times(torch.log(sigma), process.schedule.time(sigma).clamp(0.0, 1.0), nats)
