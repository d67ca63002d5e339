"""The options that `evaluate`, `compare` and `frontier` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import UserError

if TYPE_CHECKING:
    from ..evaluation.bench import EvalOptions


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Options of everything that measures runs."""

    data: str = ""
    """Measure on this text (empty = the part that the run held out)."""
    num: int = 128
    """Number of texts to write and judge (0 = none)."""
    judge: str = ""
    """Measure generative perplexity with this run or causal language model (empty = not at all)."""
    seed: int = 0
    """The same seed gives the same figures."""
    weights: Literal["ema", "raw"] = "ema"
    """Use the averaged weights (ema) or the optimizer's own (raw)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Compute the network's features in this precision."""
    json: bool = False
    """Print JSON."""

    def check(self) -> None:
        """Raises UserError for values that are not allowed."""
        if self.num < 0 or self.num == 1:
            raise UserError(f"--num is {self.num}; it must be at least 2, or 0 for no texts.")

    def plan(self) -> EvalOptions:
        """What to measure, as options of the package."""
        from dataclasses import fields

        from ..evaluation.bench import EvalOptions

        names = [field.name for field in fields(EvalOptions) if hasattr(self, field.name)]
        return EvalOptions(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Bounding(Measuring):
    """Options for measuring bits per character."""

    target_error: float = 0.01
    """Repeat the random draws until their standard error is below this many bits."""
    draws: int = 0
    """Number of passes over the text (0 = as many as --target-error needs)."""
    windows: int = 0
    """Measure on this many evenly spaced windows (0 = all)."""
    batch_size: int = 64
    """Number of windows per batch; it does not change the result."""
    order: str = ""
    """Measure the exact likelihood of a masked model that reveals text in this order: left, confidence, margin or
    entropy (random: the masked bound). `evaluate` shows it instead of the bound, `compare` beside it."""
    per_step: int = 1
    """With --order: reveal this many positions at a time."""

    def check(self) -> None:
        """Raises UserError for values that are not allowed."""
        super().check()
        if self.draws == 1 or self.draws < 0:
            raise UserError(f"--draws is {self.draws}; it must be at least 2, or 0 for as many as needed.")
        if self.target_error <= 0 or self.batch_size < 1:
            raise UserError("--target-error and --batch-size must be above 0.")
        if self.windows < 0:
            raise UserError(f"--windows is {self.windows}; it must be at least 1, or 0 for all.")
        if self.per_step != 1 and not self.order:
            raise UserError(f"--per-step {self.per_step} has no effect without --order.")


@dataclass(frozen=True, kw_only=True)
class Sweeping(Measuring):
    """Options for writing texts under several settings."""

    samplers: tuple[str, ...] = ()
    """Names from `textdiffusion samplers RUN`, with settings as in ddim:eta=1 (none = the run's default)."""
    steps: tuple[int, ...] = ()
    """Numbers of denoising steps (none = the sampler's default)."""
    temperatures: tuple[float, ...] = (0.5, 0.75, 1.0)
    """Sampling temperatures."""
    order_windows: int = 32
    """Number of windows on which to measure the exact likelihood of what each sampler draws, where it has one
    (0 = none)."""

    def check(self) -> None:
        """Raises UserError for values that are not allowed."""
        super().check()
        if self.order_windows < 0:
            raise UserError(f"--order-windows is {self.order_windows}; it must be at least 1, or 0 for none.")
        if min(self.steps, default=1) < 1 or min(self.temperatures, default=1.0) <= 0.0:
            raise UserError("Each of --steps must be at least 1, and each of --temperatures above 0.")
