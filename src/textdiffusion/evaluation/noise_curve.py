"""How well a model predicts at every noise level: cross-entropy against noise (Dieleman et al. 2022, figure 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.memory import check_memory
from ..core.randomness import Rng
from ..core.types import Scalar, Times, Tokens
from ..diffusion.blocks import BlockProcess
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.process import TokenProcess
from ..objectives.base import add_noise
from ..objectives.noised_batch import predict_x0
from ..samplers.time_grids import tuned_times
from ..scoring.likelihood import Windows, window_error

BATCH_SIZE = 64  # windows
_LEVEL_BYTES = 40  # of a level and a window: three sums, in float32 and float64

Curve = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class NoiseCurve:
    """Cross-entropy `nats` per noised token at each `noise`: sigma if `is_sigma`, else the fraction of noised tokens.

    `predicted_loss` is the curve that the run's time density learned in training, at the same noise (None: a density
    without one); it is in other units where the objective is not a cross-entropy. `bits` is the cross-entropy in bits
    per character of all text, with its standard errors over windows (NaN for one window). `remaining` is the
    cross-entropy of a predictor without context, in the same units: see `unigram_posterior`.
    """

    is_sigma: bool
    noise: Curve
    nats: Curve
    predicted_loss: Curve | None
    remaining: Curve
    bits: Curve
    errors: Curve


@torch.no_grad()
def noise_curve(
    model: DiffusionModel,
    windows: Windows,
    *,
    levels: int = 48,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> NoiseCurve:
    """The mean over `windows` at `levels` noise levels: half of them evenly spaced in t, half at the sampling times.

    A denoiser with self-conditioning sees its own first estimate, as in sampling. Where blocks are noised one after the
    other, all blocks have the same noise level, each given the clean blocks before it.

    `progress` is called with the fraction done. Raises UserError for a process without noise levels.
    """
    process: Any = model.process.inside if isinstance(model.process, BlockProcess) else model.process
    if not isinstance(process, (GaussianProcess, TokenProcess)):
        raise UserError(f"{type(process).__name__} has no noise levels, so there is no curve to draw.")
    device = next(model.parameters()).device
    batch = replace(windows.windows(range(len(windows))), row_ids=torch.arange(len(windows))).to(device)
    assert batch.num_chars is not None
    log_prior = log_frequencies(batch, model.codec.vocab_size)
    check_memory(levels * len(windows) * _LEVEL_BYTES, f"Measuring {levels:,} noise levels", "lower levels (--levels)")
    counts = levels // 2, levels - levels // 2
    even, quantiles = ((torch.arange(count, device=device) + 0.5) / count for count in counts)
    times = torch.cat((even, model.time_density.sampling_times(quantiles))).sort().values
    if len(times.unique()) < levels:  # sampling times that are evenly spaced too
        times = (torch.arange(levels, device=device) + 0.5) / levels
    sums = []
    for number, time in enumerate(times):
        chunks = []
        for rows in torch.arange(len(windows), device=device).split(BATCH_SIZE):
            rng = Rng.of(seed, rows).fork("noise curve")  # the same at all levels, which then differ by noise alone
            chunks.append(_sums(model, process, batch.select(rows), time, log_prior, rng))
        sums.append(torch.cat(chunks))
        progress((number + 1) / len(times))
    nats, unigram_nats, num_noised = torch.stack(sums).cpu().double().unbind(-1)  # [levels, windows]
    any_noised = num_noised.sum(-1) > 0
    predicted = model.time_density.predicted_loss(times)
    is_gaussian = isinstance(process, GaussianProcess)
    noise = process.sigma(times) if is_gaussian else 1.0 - process.schedule.alpha(times)
    chars = batch.num_chars.cpu().double()
    per_char = math.log(2.0) * chars.sum()
    errors = [window_error(row[None].numpy(), chars.numpy()) for row in nats[any_noised]]

    def column(values: Tensor) -> Curve:
        return values.cpu()[any_noised].double().numpy()

    return NoiseCurve(
        is_gaussian,
        column(noise),
        column(nats.sum(-1) / num_noised.sum(-1)),
        None if predicted is None else column(predicted),
        column(unigram_nats.sum(-1) / per_char),
        column(nats.sum(-1) / per_char),
        np.array([math.nan if error is None else error for error in errors]),
    )


def tuned_grid(
    model: DiffusionModel,
    windows: Windows,
    *,
    levels: int = 48,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Float[Tensor, " k"]:
    """Sampling times at which cross-entropy on `windows` rises evenly (see `tuned_times`), for `DiffusionModel.tuned`.

    Raises UserError for a process that is not Gaussian.
    """
    process: Any = model.process
    if not isinstance(process, GaussianProcess):
        name = type(process).__name__
        raise UserError(f"Only the sampling times of Gaussian processes can be tuned; this run has {name}.")
    curve = noise_curve(model, windows, levels=levels, seed=seed, progress=progress)
    low, high = process.sigma(torch.tensor((0.0, 1.0), device=next(model.parameters()).device)).cpu()
    sigma = torch.from_numpy(curve.noise).float().clamp(low, high)
    nats = torch.from_numpy(curve.nats)
    sigma, nats = (torch.cat((a[None], v, b[None])) for a, v, b in ((low, sigma, high), (nats[0], nats, nats[-1])))
    return tuned_times(torch.log(sigma), process.schedule.time(sigma).clamp(0.0, 1.0), nats)


def log_frequencies(batch: Batch, vocab_size: int) -> Float[Tensor, " v"]:
    """Log of each token's relative frequency in a batch."""
    counts = torch.bincount(batch.tokens[batch.target_mask], minlength=vocab_size)
    return counts.float().div(batch.target_mask.sum()).log()


def unigram_posterior(
    model: DiffusionModel, xt: Tensor, t: Times, tokens: Tokens, log_prior: Float[Tensor, " v"]
) -> Prediction:
    """p(x_i | x_t,i): the posterior of each token given its own noised state and the token frequencies only.

    Its cross-entropy is the remaining information of x_t, H(x_i | x_t,i): a property of the process and the
    frequencies, not of a network. For masks it is the mask probability times the entropy of a token.
    """
    logits = log_prior.expand(*tokens.shape, -1)
    if isinstance(model.process, GaussianProcess):
        return Prediction(logits + model.codec.evidence(xt, model.process.sigma(t)[0]))
    log_odds = None if isinstance(model.process, BlockProcess) else model.process.self_log_odds(xt, t)
    return Prediction(logits if log_odds is None else logits.scatter_add(-1, xt[..., None], log_odds[..., None]))


def _sums(
    model: DiffusionModel, process: Any, batch: Batch, time: Scalar, log_prior: Float[Tensor, " v"], rng: Rng
) -> Float[Tensor, "b 3"]:
    """Per row: nats of the model, nats of the posterior without context, and the number of noised tokens."""
    t = time.expand(len(batch.tokens))
    block_t = t[:, None].expand(batch.tokens.shape) if isinstance(model.process, BlockProcess) else t
    xt = add_noise(model, model.codec.encode(batch.tokens), block_t, batch, rng=rng)
    mask = batch.target_mask
    if not isinstance(process, GaussianProcess):
        mask = mask & process.is_noisy(xt)
    nats = predict_x0(model, xt, block_t, batch).nll(batch.tokens, mask)
    unigram_nats = unigram_posterior(model, xt, t, batch.tokens, log_prior).nll(batch.tokens, mask)
    return torch.stack((nats, unigram_nats, mask.float())).sum(-1).T
