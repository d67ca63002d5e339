"""Bits per character: one unit for every family, with its standard errors and its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.model import DiffusionModel
from .protocol import Fact, digest

MIN_ROWS = 128  # rows over which a pass spreads its noise levels; few windows are repeated to have so many
PILOT_ROWS = 256  # rows of the pass that decides where draws count most
MIN_PASSES, MAX_PASSES = 4, 256  # passes


@runtime_checkable
class RowEstimator(Protocol):
    """Something of every row that depends on draws."""

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b *k"]: ...


@runtime_checkable
class SupportsImportanceSampling(Protocol):
    """A likelihood that draws better after a pass that does not count."""

    def pilot(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b k"]:
        """What each row of that pass has to say."""
        ...

    def importance_sampled(self, pilot: Float[Tensor, "n k"]) -> Any:
        """The same likelihood with less variance."""
        ...


@runtime_checkable
class Windows(Protocol):
    """Text cut into windows: a part of a corpus, or `Texts`."""

    def __len__(self) -> int: ...

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The windows of these numbers, with the characters of each."""
        ...


@dataclass(frozen=True)
class LikelihoodEstimate:
    """Bits per character of a text under a model; an upper bound unless `exact`.

    `monte_carlo_error` is the standard error that the random draws leave in `bits`, with the text fixed; 0 if exact.
    `window_error` is the standard error of `bits` as an estimate for more text of this kind, from the spread between
    windows as if they were independent (None: one window), and the Monte-Carlo error.
    """

    bits: float
    monte_carlo_error: float
    window_error: float | None
    exact: bool
    characters: int
    windows: int
    draws: int
    """Draws per window."""
    protocol: dict[str, Fact] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Bits of all that was measured."""
        return self.bits * self.characters

    @property
    def digest(self) -> str:
        """What figures of one table have in common: a short hash of the protocol (see `evaluation.protocol`)."""
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

    A pass is one unbiased draw of the likelihood for every window, its noise levels stratified over all rows of the
    pass; fewer than 128 windows are repeated, so that each window's own levels are spread too. The rows of a pass share
    one offset and are not independent, but passes are: the error is their standard deviation / sqrt(passes), from at
    least 4 passes. That estimate is itself uncertain by 1 / sqrt(2 (passes - 1)) of it, and stopping at the first small
    one would favour lucky ones, so the target is compared with the estimate plus twice its uncertainty. `draws` fixes
    the number of passes (>= 2) instead. A likelihood that can be aimed is, by 256 rows of a pilot pass that does not
    count. One that says it is `exact` takes one pass. The
    result does not depend on `batch_size` but for rounding.
    `about` joins the protocol; `progress` is called with (pass, share of it done, error so far).
    """
    count = len(windows)
    if count < 1 or (draws is not None and draws < 2):
        raise ValueError("a likelihood needs at least one window and two draws")
    kind, exact = type(likelihood).__name__, bool(likelihood.exact)
    copies = 1 if exact else -(-MIN_ROWS // count)
    chars = _characters(windows, batch_size)
    passes: list[np.ndarray] = []
    error = math.inf
    with torch.no_grad(), eval_mode(model):
        if isinstance(likelihood, SupportsImportanceSampling):
            pilot = spaced_rows(count, PILOT_ROWS)
            likelihood = likelihood.importance_sampled(
                evaluate_rows(likelihood.pilot, model, windows, pilot, seed, "pilot", 0, batch_size)
            )
        while len(passes) < (1 if exact else draws or MAX_PASSES):
            number = len(passes)

            def report(share: float, number: int = number, error: float = error) -> None:
                if progress:
                    progress(number + 1, share, error)

            # Neighbouring rows get neighbouring noise levels: copies of a window spread evenly, and windows at random.
            order = Rng.of(seed, count).fork("order").fork(number).uniform(1)[:, 0].argsort().numpy()
            rows = np.tile(order, copies)
            nats = evaluate_rows(likelihood, model, windows, rows, seed, "likelihood", number, batch_size, report)
            passes.append(nats.numpy().reshape(copies, count).mean(0)[order.argsort()])
            totals = np.array([each.sum() for each in passes]) / chars.sum() / math.log(2.0)
            if len(passes) >= 2:
                error = float(totals.std(ddof=1) / math.sqrt(len(passes)))
                if draws is None and _is_precise(len(passes), error, target_error):
                    break
    between = window_error(np.array(passes), chars)
    made = len(passes) * copies
    protocol: dict[str, Fact] = {
        "windows": count,
        "characters": int(chars.sum()),
        "draws": made,
        "seed": seed,
        "likelihood": kind,
        "dtype": str(model.denoiser.backbone.compute_dtype).removeprefix("torch."),
        **(metadata or {}),
    }
    return LikelihoodEstimate(
        bits=float(totals.mean()),
        monte_carlo_error=0.0 if exact else error,
        window_error=None if between is None else math.hypot(between, 0.0 if exact else error),
        exact=exact,
        characters=int(chars.sum()),
        windows=count,
        draws=made,
        protocol=protocol,
    )


def _is_precise(passes: int, error: float, target: float) -> bool:
    return passes >= MIN_PASSES and error * (1.0 + 2.0 / math.sqrt(2.0 * (passes - 1))) <= target


def spaced_rows(count: int, rows: int) -> Int[np.ndarray, " rows"]:
    """So many of `count` windows, evenly; all of them, over and over, where there are fewer."""
    return np.arange(rows) * count // rows if count > rows else np.arange(rows) % count


def evaluate_rows(
    estimator: RowEstimator,
    model: DiffusionModel,
    windows: Windows,
    chosen: Int[np.ndarray, " n"],
    seed: int,
    stream: str,
    number: int,
    batch_size: int,
    report: Callable[[float], None] | None = None,
) -> Float[Tensor, "n *k"]:
    """`value(model, batch, rng=rng)` of the `chosen` windows, on the CPU in float64; noise is even over all of them."""
    device, parts = next(model.parameters()).device, []
    for start in range(0, len(chosen), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(chosen)))
        batch = replace(
            windows.windows(chosen[start : start + batch_size]), row_ids=rows, global_batch_size=len(chosen)
        ).to(device)
        rng = Rng.of(seed, rows.to(device)).fork(stream).fork(number)
        parts.append(estimator(model, batch, rng=rng).cpu().double())  # mps has no float64
        if report:
            report(float(rows[-1] + 1) / len(chosen))
    return torch.cat(parts)


def _characters(windows: Windows, batch_size: int) -> Float[np.ndarray, " windows"]:
    parts = []
    for start in range(0, len(windows), batch_size):
        chars = windows.windows(range(start, min(start + batch_size, len(windows)))).num_chars
        assert chars is not None, "windows must say how many characters they stand for"
        parts.append(chars.double().numpy())
    return np.concatenate(parts)


def window_error(nats: Float[np.ndarray, "passes w"], chars: Float[np.ndarray, " w"]) -> float | None:
    """Standard error of the ratio of sums over windows, by linearisation; None for one window.

    What the passes differ by within a window is taken out (analysis of variance): noise levels are even over the
    windows of a pass, not over the passes of a window, so a window has all of that noise and the sum hardly any.
    """
    passes, count = nats.shape
    if count < 2:
        return None
    residual = nats - nats.sum(1, keepdims=True) / chars.sum() * chars
    spread = count / (count - 1) * np.square(residual.mean(0)).sum()
    noise = residual.var(0, ddof=1).sum() / passes if passes > 1 else 0.0
    return float(math.sqrt(max(0.0, spread - noise)) / chars.sum() / math.log(2.0))


class eval_mode:
    """Dropout off inside, and the mode the model had before restored after."""

    def __init__(self, model: DiffusionModel) -> None:
        self.model, self.before = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.before)
