"""Bits per character: one unit for every family, with its standard errors and its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from ..batch import Batch
from ..model import Model
from ..randomness import Rng

LEAST_ROWS = 128  # rows over which a pass spreads its noise levels; few windows are repeated to have so many
FEWEST, MOST = 4, 256  # passes

Fact = str | int | float | bool


@runtime_checkable
class Windows(Protocol):
    """Text cut into windows: a part of a corpus, or `Texts`."""

    def __len__(self) -> int: ...

    def windows(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The windows of these numbers, with the characters of each."""
        ...


@dataclass(frozen=True)
class Likelihood:
    """Bits per character of a text under a model; an upper bound unless `exact`.

    `monte_carlo_error` is the standard error that the random draws leave in `bits`, with the text fixed; 0 if exact.
    `window_error` is the standard error of `bits` as an estimate for more text of this kind, from the spread between
    windows as if they were independent (None: one window). It contains the Monte-Carlo error.
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

    def __str__(self) -> str:
        sign, error = ("=", "") if self.exact else ("<=", f" +- {self.monte_carlo_error:.4f} (draws)")
        spread = "" if self.window_error is None else f" +- {self.window_error:.3f} (windows)"
        return f"{sign} {self.bits:.4f} bits per character{error}{spread}"


def bits_per_character(
    model: Model,
    windows: Windows,
    *,
    seed: int = 0,
    target_error: float = 0.01,
    draws: int | None = None,
    batch_size: int = 64,
    about: Mapping[str, Fact] | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> Likelihood:
    """The bound of `model` on `windows`, averaged over passes until the Monte-Carlo error is below `target_error`.

    A pass is one unbiased draw of the likelihood for every window, its noise levels stratified over all rows of the
    pass; fewer than 128 windows are repeated, so that each window's own levels are spread too. The rows of a pass share
    one offset and are not independent, but passes are: the error is their standard deviation / sqrt(passes), from at
    least 4 passes. That estimate is itself uncertain by 1 / sqrt(2 (passes - 1)) of it, and stopping at the first small
    one would favour lucky ones, so the target is compared with the estimate plus twice its uncertainty. `draws` fixes
    the number of passes (>= 2) instead. A likelihood that says it is `exact` takes one pass. The result does not depend
    on `batch_size` but for rounding. `about` joins the protocol; `progress` is called with (pass, share of it done,
    error so far).
    """
    count = len(windows)
    if count < 1 or (draws is not None and draws < 2):
        raise ValueError("a likelihood needs at least one window and two draws")
    exact = bool(model.likelihood.exact)
    copies = 1 if exact else -(-LEAST_ROWS // count)
    passes: list[np.ndarray] = []
    chars = np.zeros(0)
    error = math.inf
    with torch.no_grad(), _evaluating(model):
        while len(passes) < (1 if exact else draws or MOST):
            number = len(passes)

            def report(share: float, number: int = number, error: float = error) -> None:
                if progress:
                    progress(number + 1, share, error)

            nats, chars = _one_pass(model, windows, seed, number, copies, batch_size, report)
            passes.append(nats)
            totals = np.array([rows.sum() for rows in passes]) / copies / chars.sum() / math.log(2.0)
            if len(passes) >= 2:
                error = float(totals.std(ddof=1) / math.sqrt(len(passes)))
                if draws is None and _settled(len(passes), error, target_error):
                    break
    nats = np.mean(passes, axis=0).reshape(copies, count).mean(0)
    made = len(passes) * copies
    protocol: dict[str, Fact] = {
        "windows": count,
        "draws": made,
        "seed": seed,
        "likelihood": type(model.likelihood).__name__,
        "dtype": str(model.denoiser.trunk.compute_dtype).removeprefix("torch."),
        **(about or {}),
    }
    return Likelihood(
        bits=float(totals.mean()),
        monte_carlo_error=0.0 if exact else error,
        window_error=_window_error(nats, chars),
        exact=exact,
        characters=int(chars.sum()),
        windows=count,
        draws=made,
        protocol=protocol,
    )


def _settled(passes: int, error: float, target: float) -> bool:
    return passes >= FEWEST and error * (1.0 + 2.0 / math.sqrt(2.0 * (passes - 1))) <= target


def _one_pass(
    model: Model,
    windows: Windows,
    seed: int,
    number: int,
    copies: int,
    batch_size: int,
    report: Callable[[float], None],
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " windows"]]:
    """One draw in nats for each row, and the characters of each window. Row j * windows + w is the j-th copy of w.

    Rows next to each other get neighbouring noise levels, so this order spreads the copies of a window evenly.
    """
    count = len(windows)
    total = count * copies
    device = next(model.parameters()).device
    nats, chars = np.zeros(total), np.zeros(count)
    for start in range(0, total, batch_size):
        rows = np.arange(start, min(start + batch_size, total))
        batch = windows.windows(rows % count)
        assert batch.chars is not None, "windows must say how many characters they stand for"
        chars[rows % count] = batch.chars.numpy()
        batch = replace(batch, rows=torch.from_numpy(rows), total=total).to(device)
        assert batch.rows is not None
        rng = Rng.of(seed, batch.rows).fork("likelihood").fork(number)
        nats[rows] = model.likelihood(model, batch, rng=rng).cpu().double().numpy()  # mps has no float64
        report(float(rows[-1] + 1) / total)
    return nats, chars


def _window_error(nats: Float[np.ndarray, " w"], chars: Float[np.ndarray, " w"]) -> float | None:
    """Standard error of the ratio of sums, by linearisation."""
    count = len(nats)
    if count < 2:
        return None
    residual = nats - nats.sum() / chars.sum() * chars
    return float(math.sqrt(count / (count - 1) * np.square(residual).sum()) / chars.sum() / math.log(2.0))


class _evaluating:
    """Dropout off inside, and the mode the model had before restored after."""

    def __init__(self, model: Model) -> None:
        self.model, self.before = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.before)
