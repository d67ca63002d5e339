"""Bits per character: one unit for every family, with standard errors and the protocol of the measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.cancellation import check_cancelled
from ..core.errors import UserError
from ..core.randomness import Rng, check_seed
from ..diffusion.model import DiffusionModel
from .protocol import Fact, digest

MIN_ROWS = 128  # rows over which a pass spreads its noise levels; fewer windows are repeated
PILOT_ROWS = 256  # rows of the pass that shows where noise levels matter most
MIN_PASSES, MAX_PASSES = 4, 256


@runtime_checkable
class RowEstimator(Protocol):
    """A random estimate of something of every row, such as its likelihood."""

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b *k"]: ...


@runtime_checkable
class SupportsImportanceSampling(Protocol):
    """A likelihood with less variance once a pilot pass has shown where its integrand is large."""

    def pilot(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b k"]:
        """What the pilot pass records of each row."""
        ...

    def importance_sampled(self, pilot: Float[Tensor, "n k"]) -> Any:
        """The same likelihood with less variance."""
        ...


@runtime_checkable
class HasProtocol(Protocol):
    """A likelihood whose settings choose the distribution that is measured, such as an order of revealing."""

    @property
    def protocol(self) -> Mapping[str, Fact]:
        """The settings that comparable figures share."""
        ...


@runtime_checkable
class Windows(Protocol):
    """Text cut into windows: a split of a corpus, or `Texts`."""

    def __len__(self) -> int: ...

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The windows with these numbers, with the number of characters of each."""
        ...


@dataclass(frozen=True)
class LikelihoodEstimate:
    """Bits per character of a text under a model; an upper bound unless `exact`."""

    bits: float
    monte_carlo_error: float
    """Standard error of `bits` from the random draws, with the text fixed; 0 if exact."""
    window_error: float | None
    """Standard error of `bits` as an estimate for more text of this kind: the spread between windows, taken as
    independent, and the Monte-Carlo error (None: one window)."""
    exact: bool
    characters: int
    windows: int
    draws: int
    """Draws per window."""
    protocol: dict[str, Fact] = field(default_factory=dict)
    lost_bits: float = 0.0
    """The part of `bits` that spells what the tokenizer loses of the text (see `tokenizers.losses`)."""

    @property
    def total(self) -> float:
        """Bits of the whole text."""
        return self.bits * self.characters

    @property
    def digest(self) -> str:
        """A short hash of the protocol; figures with the same one are comparable (see `scoring.protocol`)."""
        return digest(self.protocol)

    def __str__(self) -> str:
        sign, error = ("=", "") if self.exact else ("<=", f" +- {self.monte_carlo_error:.4f} (draws)")
        spread = "" if self.window_error is None else f" +- {self.window_error:.3f} (windows)"
        return f"{sign} {self.bits:.4f} bits per character{error}{spread}"


def bits_per_character(
    model: DiffusionModel,
    windows: Windows,
    likelihood: Any,
    *,
    seed: int = 0,
    target_error: float = 0.01,
    draws: int | None = None,
    batch_size: int = 64,
    metadata: Mapping[str, Fact] | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> LikelihoodEstimate:
    """The bound of `model` on `windows`, averaged over passes until the Monte-Carlo error is below `target_error`.

    A pass is one unbiased draw of the likelihood for every window, with noise levels stratified over all rows of the
    pass; fewer than 128 windows are repeated, so that each window's own levels are spread too. The rows of a pass share
    one offset and are not independent, but passes are: the error is their standard deviation / sqrt(passes), from at
    least 4 passes. That estimate is itself uncertain by 1 / sqrt(2 (passes - 1)) of it, and stopping at the first small
    one would be biased towards lucky ones, so the target is compared with the estimate plus twice its uncertainty.
    `draws` fixes the number of passes (>= 2) instead. A likelihood that supports importance sampling first gets a pilot
    pass of 256 rows, which is not part of the average. An `exact` likelihood takes one pass.

    The bits of what the tokenizer lost of a window (`Batch.lost_bits`) are added to those of its tokens. Except for
    rounding, the result does not depend on `batch_size`. `metadata` is added to the protocol. `progress` is
    called with the number of the pass, its completed fraction and the error so far.
    """
    check_seed(seed)
    count = len(windows)
    if count < 1 or (draws is not None and draws < 2):
        raise ValueError("a likelihood needs at least one window and two draws")
    name, exact = type(likelihood).__name__, bool(likelihood.exact)
    repeats = 1 if exact else -(-MIN_ROWS // count)
    chars, lost_bits = _characters(windows, batch_size)
    passes: list[np.ndarray] = []
    error = math.inf
    with torch.no_grad(), eval_mode(model):
        if isinstance(likelihood, SupportsImportanceSampling):
            rows = spaced_rows(count, PILOT_ROWS)
            pilot = evaluate_rows(likelihood.pilot, model, windows, rows, seed, "pilot", 0, batch_size)
            likelihood = likelihood.importance_sampled(pilot)
        while len(passes) < (1 if exact else draws or MAX_PASSES):
            number = len(passes)

            def report(fraction: float, number: int = number, error: float = error) -> None:
                if progress:
                    progress(number + 1, fraction, error)

            # Neighbouring rows get neighbouring noise levels: a random order gives windows random levels, and the
            # repeats of a window evenly spaced ones.
            order = Rng.of(seed, count).fork("order").fork(number).uniform(1)[:, 0].argsort().numpy()
            rows = np.tile(order, repeats)
            nats = evaluate_rows(likelihood, model, windows, rows, seed, "likelihood", number, batch_size, report)
            if not nats.isfinite().all():
                raise UserError(
                    "The likelihood of this text is NaN or infinite: the weights are damaged, or training diverged."
                )
            passes.append(nats.numpy().reshape(repeats, count).mean(0)[order.argsort()] + math.log(2.0) * lost_bits)
            means = np.array([row_nats.sum() for row_nats in passes]) / chars.sum() / math.log(2.0)
            if len(passes) >= 2:
                error = float(means.std(ddof=1) / math.sqrt(len(passes)))
                if draws is None and _is_precise(len(passes), error, target_error):
                    break
    between_windows = window_error(np.array(passes), chars)
    num_draws = len(passes) * repeats
    protocol: dict[str, Fact] = {
        "windows": count,
        "characters": int(chars.sum()),
        "draws": num_draws,
        "seed": seed,
        "likelihood": name,
        "dtype": str(model.unadapted.denoiser.backbone.compute_dtype).removeprefix("torch."),
        **(likelihood.protocol if isinstance(likelihood, HasProtocol) else {}),
        **(metadata or {}),
    }
    return LikelihoodEstimate(
        bits=float(means.mean()),
        monte_carlo_error=0.0 if exact else error,
        window_error=None if between_windows is None else math.hypot(between_windows, 0.0 if exact else error),
        exact=exact,
        characters=int(chars.sum()),
        windows=count,
        draws=num_draws,
        protocol=protocol,
        lost_bits=float(lost_bits.sum() / chars.sum()),
    )


def _is_precise(passes: int, error: float, target: float) -> bool:
    return passes >= MIN_PASSES and error * (1.0 + 2.0 / math.sqrt(2.0 * (passes - 1))) <= target


def spaced_rows(count: int, rows: int) -> Int[np.ndarray, " rows"]:
    """`rows` evenly spaced window numbers of `count`; if there are fewer windows, all of them repeatedly."""
    return np.arange(rows) * count // rows if count > rows else np.arange(rows) % count


def evaluate_rows(
    estimator: RowEstimator,
    model: DiffusionModel,
    windows: Windows,
    rows: Int[np.ndarray, " n"],
    seed: int,
    stream: str,
    number: int,
    batch_size: int,
    report: Callable[[float], None] | None = None,
) -> Float[Tensor, "n *k"]:
    """The estimates for the windows `rows`, on the CPU in float64; noise levels are stratified over all rows.

    `stream` and `number` name the random stream. `report` receives the completed fraction.
    """
    device, estimates = next(model.parameters()).device, []
    for start in range(0, len(rows), batch_size):
        check_cancelled()
        ids = torch.arange(start, min(start + batch_size, len(rows)))
        batch = windows.windows(rows[start : start + batch_size])
        batch = replace(batch, row_ids=ids, global_batch_size=len(rows)).to(device)
        rng = Rng.of(seed, ids.to(device)).fork(stream).fork(number)
        estimates.append(estimator(model, batch, rng=rng).cpu().double())  # mps has no float64
        if report:
            report(float(ids[-1] + 1) / len(rows))
    return torch.cat(estimates)


def _characters(
    windows: Windows, batch_size: int
) -> tuple[Float[np.ndarray, " windows"], Float[np.ndarray, " windows"]]:
    """The number of characters of each window, and the bits of those that the tokenizer lost."""
    counts, lost = [], []
    for start in range(0, len(windows), batch_size):
        batch = windows.windows(range(start, min(start + batch_size, len(windows))))
        assert batch.num_chars is not None, "windows must give their number of characters"
        counts.append(batch.num_chars.double().numpy())
        lost.append(np.zeros_like(counts[-1]) if batch.lost_bits is None else batch.lost_bits.double().numpy())
    return np.concatenate(counts), np.concatenate(lost)


def window_error(nats: Float[np.ndarray, "passes w"], chars: Float[np.ndarray, " w"]) -> float | None:
    """Standard error of the ratio of sums over windows, by linearisation; None for one window.

    The variance between passes of a window is subtracted (analysis of variance): noise levels are stratified over the
    windows of a pass, not over the passes of a window, so this noise is in each window but hardly in the sum.
    """
    passes, count = nats.shape
    if count < 2:
        return None
    residual = nats - nats.sum(1, keepdims=True) / chars.sum() * chars
    variance = count / (count - 1) * np.square(residual.mean(0)).sum()
    noise = residual.var(0, ddof=1).sum() / passes if passes > 1 else 0.0
    return float(math.sqrt(max(0.0, variance - noise)) / chars.sum() / math.log(2.0))


@contextmanager
def eval_mode(model: DiffusionModel) -> Iterator[None]:
    """The model is in evaluation mode inside, and in its previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
