"""How well a model predicts at every noise level: cross-entropy against noise (CDCD, figure 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.blocks import BlockProcess
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.process import TokenProcess
from ..objectives.base import add_noise, predict_x0
from ..samplers.time_grids import tuned_times
from ..scoring.likelihood import Windows, window_error

ROWS = 64  # windows that are predicted at once


@dataclass(frozen=True)
class NoiseCurve:
    """Cross-entropy in nats per noised token at `noise`: sigma of a Gaussian process, else the share of noised tokens.

    `fitted` is the curve that the run's noise density learned in training, at the same noise (None: it has none); it is
    of another loss where the objective has no cross-entropy. `bits` is the cross-entropy of all tokens, also of those
    that need no prediction, in bits per character, with its standard error over windows (NaN for one window).
    `remaining` is what would be left of it without any context: see `alone`.
    """

    sigma: bool
    noise: Float[np.ndarray, " n"]
    nats: Float[np.ndarray, " n"]
    fitted: Float[np.ndarray, " n"] | None
    remaining: Float[np.ndarray, " n"]
    bits: Float[np.ndarray, " n"]
    errors: Float[np.ndarray, " n"]


@torch.no_grad()
def noise_curve(
    model: DiffusionModel,
    windows: Windows,
    *,
    levels: int = 48,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> NoiseCurve:
    """The mean over `windows` at `levels` noise levels, half of them spread evenly over t and half over the
    run's sampling grid. A denoiser with self-conditioning sees its own first estimate, as in sampling. Where blocks
    are noised one after the other, all are at the same level, each after clean ones.

    Raises UserError for a process without noise levels.
    """
    process: Any = model.process.inside if isinstance(model.process, BlockProcess) else model.process
    if not isinstance(process, (GaussianProcess, TokenProcess)):
        raise UserError(f"A {type(process).__name__} has no noise levels, so there is no curve to draw.")
    device = next(model.parameters()).device
    batch = replace(windows.windows(range(len(windows))), row_ids=torch.arange(len(windows))).to(device)
    assert batch.num_chars is not None
    log_prior = log_frequencies(batch, model.codec.vocab_size)
    counts = levels // 2, levels - levels // 2
    even, own = ((torch.arange(count, device=device) + 0.5) / count for count in counts)
    times = torch.cat((even, model.time_density.sampling_times(own))).sort().values
    found = []
    for number, time in enumerate(times):
        parts = []
        for rows in torch.arange(len(windows), device=device).split(ROWS):
            rng = Rng.of(seed, rows).fork("noise curve")  # the same at all levels, so that they differ by noise alone
            parts.append(_sums(model, process, batch.select(rows), time, log_prior, rng))
        found.append(torch.cat(parts))
        if progress:
            progress((number + 1) / len(times))
    nats, alone_, counted = torch.stack(found).cpu().double().unbind(-1)  # [levels, windows]
    kept = counted.sum(-1) > 0
    fitted = model.time_density.predicted_loss(times)
    gaussian = isinstance(process, GaussianProcess)
    noise = process.sigma(times) if gaussian else 1.0 - process.schedule.alpha(times)
    chars = batch.num_chars.cpu().double()
    per_char = math.log(2.0) * chars.sum()
    each = [window_error(row[None].numpy(), chars.numpy()) for row in nats[kept]]
    return NoiseCurve(
        gaussian,
        noise.cpu()[kept].double().numpy(),
        (nats.sum(-1) / counted.sum(-1))[kept].numpy(),
        None if fitted is None else fitted.cpu()[kept].double().numpy(),
        (alone_.sum(-1) / per_char)[kept].numpy(),
        (nats.sum(-1) / per_char)[kept].numpy(),
        np.array([math.nan if error is None else error for error in each]),
    )


def tuned_grid(
    model: DiffusionModel,
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


def log_frequencies(batch: Batch, vocab_size: int) -> Float[Tensor, " v"]:
    """How often each token comes in a batch, as log probabilities."""
    return (
        torch.bincount(batch.tokens[batch.target_mask], minlength=vocab_size).float().div(batch.target_mask.sum()).log()
    )


def unigram_posterior(
    model: DiffusionModel, xt: Tensor, t: Float[Tensor, " b"], ids: Int[Tensor, "b l"], log_prior: Float[Tensor, " v"]
) -> Prediction:
    """What each noised token says by itself, when all that is known of text is how often each token comes.

    Its cross-entropy is the remaining information of x_t: H(x_i | x_t,i), a property of the process and the
    frequencies that no network enters into. Masks: the masked share times the entropy of a token.
    """
    logits = log_prior.expand(*ids.shape, -1)
    if isinstance(model.process, GaussianProcess):
        return Prediction(logits + model.codec.evidence(xt, model.process.sigma(t)[0]))
    own = None if isinstance(model.process, BlockProcess) else model.process.self_log_odds(xt, t)
    return Prediction(logits if own is None else logits.scatter_add(-1, xt[..., None], own[..., None]))


def _sums(
    model: DiffusionModel, process: Any, batch: Batch, time: Float[Tensor, ""], log_prior: Float[Tensor, " v"], rng: Rng
) -> Float[Tensor, "b 3"]:
    """Nats of the model, nats of each token alone, and the number of noised tokens, of every row."""
    t = time.expand(len(batch.tokens))
    at = t[:, None].expand(batch.tokens.shape) if isinstance(model.process, BlockProcess) else t
    xt = add_noise(model, model.codec.encode(batch.tokens), at, batch, rng=rng)
    where = batch.target_mask
    if not isinstance(process, GaussianProcess):
        where = where & process.is_noisy(xt)
    nats = predict_x0(model, xt, at, batch).nll(batch.tokens, where)
    return (
        torch.stack(
            (nats, unigram_posterior(model, xt, t, batch.tokens, log_prior).nll(batch.tokens, where), where.float())
        )
        .sum(-1)
        .T
    )
