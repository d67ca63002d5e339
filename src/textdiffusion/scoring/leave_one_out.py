"""How likely each token or word of a text is, given all the others: what a proof-reader looks at."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.cancellation import check_cancelled
from ..core.randomness import Rng
from ..core.types import Logits, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import Prediction
from ..diffusion.token_noise import TokenNoiseProcess

HIDES_EVERYWHERE = (TokenNoiseProcess, GaussianProcess)
"""Processes whose noise is at every position at once: nothing says which tokens it changed."""

NUM_DRAWS = 32  # noisy copies of a text
LEVEL = 0.2  # their noise, as a fraction of the steps of sampling: most of the context is readable
MAX_ROWS, MAX_LOGITS = 64, 1 << 25  # of one call; the logits take 128 MiB in float32


@torch.no_grad()
def token_log_probs(
    model: DiffusionModel, batch: Batch, groups: Tokens | None = None, *, seed: int = 0
) -> Float[Tensor, "b l"]:
    """log p(x_i | x at all other positions) in nats for every token of the batch's texts, 0 at given positions.

    Under masks each position is masked alone, or with those of the same number in `groups`, such as the pieces of a
    word, which would give each other away. This takes one network row per group. A model from left to right sees only
    what precedes, and one of blocks what precedes and the rest of the block. Under other noise it is an estimate:
    the evidence that a noisy position has for its own token is taken out of the prediction, p(x_i | x_t) / q(x_t,i |
    x_i), and its logarithm is averaged over `NUM_DRAWS` copies of the text with little noise.
    """
    device = batch.tokens.device
    if groups is None:
        groups = torch.arange(batch.tokens.shape[1], device=device).expand(batch.tokens.shape)
    rows = [torch.tensor([i], device=device) for i in range(len(batch.tokens))]
    if isinstance(model.process, HIDES_EVERYWHERE):
        return torch.cat([_noised(model, batch.select(row), seed) for row in rows])
    return torch.cat([_masked(model, batch.select(row), groups[row]) for row in rows])


def _masked(model: DiffusionModel, row: Batch, groups: Tokens) -> Float[Tensor, "1 l"]:
    process, target = model.process, row.target_mask
    found = torch.zeros_like(row.tokens, dtype=torch.float)
    for chunk in groups[target].unique().split(_chunk_size(model, row)):
        check_cancelled()
        hidden = (groups == chunk[:, None]) & target
        xt = torch.where(hidden, process.mask, row.tokens)
        t = hidden.sum(-1) / target.sum()
        t = process.schedule.time(1.0 - t) if isinstance(process, AbsorbingProcess) else t
        log_probs = model.denoiser(xt, t, batch=_copies(row, len(chunk))).logits.log_softmax(-1)
        chosen = log_probs.gather(-1, row.tokens.expand(len(chunk), -1)[..., None])[..., 0]
        found += torch.where(hidden, chosen, 0.0).sum(0)
    return found


def _noised(model: DiffusionModel, row: Batch, seed: int) -> Float[Tensor, "1 l"]:
    process, device = model.process, row.tokens.device
    level = model.time_density.sampling_times(torch.tensor(LEVEL, device=device))
    total = torch.zeros_like(row.tokens, dtype=torch.float)
    for draws in torch.arange(NUM_DRAWS, device=device).split(_chunk_size(model, row)):
        check_cancelled()
        rows, t = _copies(row, len(draws)), level.expand(len(draws))
        clean = model.codec.encode(rows.tokens)
        target = rows.target_mask if clean.ndim == 2 else rows.target_mask[..., None]
        noisy = process.add_noise(clean, t, rng=Rng.of(seed, draws).fork("leave one out"))
        xt = torch.where(target, noisy, clean)
        prediction = model.denoiser(xt, t, batch=rows)
        log_probs = _without_own_evidence(model, xt, prediction, t).log_softmax(-1)
        total += log_probs.gather(-1, rows.tokens[..., None])[..., 0].sum(0)
    return torch.where(row.target_mask, total / NUM_DRAWS, 0.0)


def _without_own_evidence(model: DiffusionModel, xt: Tensor, prediction: Prediction, t: Tensor) -> Logits:
    process = model.process
    if isinstance(process, TokenNoiseProcess):
        return process.leave_one_out(xt, prediction, t).logits
    return prediction.logits - model.codec.evidence(xt, process.sigma_over(t, xt))


def _copies(row: Batch, count: int) -> Batch:
    return replace(row.select(torch.zeros(count, dtype=torch.long, device=row.tokens.device)), row_ids=None)


def _chunk_size(model: DiffusionModel, row: Batch) -> int:
    return max(1, min(MAX_ROWS, MAX_LOGITS // (row.tokens.shape[1] * model.codec.vocab_size)))
