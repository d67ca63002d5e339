"""What `evaluate`, `compare` and `frontier` share: their options."""

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
    """The text to measure on (empty: what the run kept back from its own)."""
    num: int = 128
    """Texts to write and judge (0: none)."""
    judge: str = ""
    """A run or a causal language model for generative perplexity."""
    seed: int = 0
    weights: Literal["ema", "raw"] = "ema"
    """The averaged weights, or the optimizer's own."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """The precision of the network's features."""
    json: bool = False
    """Print JSON."""

    def check(self) -> None:
        """Raises UserError for values that are not allowed."""
        if self.num < 0 or self.num == 1:
            raise UserError(f"--num is {self.num}; texts can be judged from 2 on, and 0 means none.")

    def plan(self) -> EvalOptions:
        """What to measure: these options, and those of the command."""
        from dataclasses import fields

        from ..evaluation.bench import EvalOptions

        own = {field.name: getattr(self, field.name) for field in fields(EvalOptions) if hasattr(self, field.name)}
        return EvalOptions(**own)


@dataclass(frozen=True, kw_only=True)
class Bounding(Measuring):
    """Options of bits per character."""

    target_error: float = 0.01
    """Draw until the standard error of the draws is below this, in bits."""
    draws: int = 0
    """Passes over the text (0: as many as the target needs)."""
    windows: int = 0
    """Measure bits on so many windows, evenly spread (0: all)."""
    batch_size: int = 64
    """Windows at once; it does not change the result."""

    def check(self) -> None:
        """Raises UserError for values that are not allowed."""
        super().check()
        if self.draws == 1 or self.draws < 0:
            raise UserError(f"--draws is {self.draws}; an error can be told from 2 on, and 0 means as many as needed.")
        if self.target_error <= 0 or self.batch_size < 1 or self.windows < 0:
            raise UserError("--target-error and --batch-size must be above 0, and --windows not below.")


@dataclass(frozen=True, kw_only=True)
class Sweeping(Measuring):
    """Options of texts under several settings."""

    samplers: tuple[str, ...] = ()
    """Names from `textdiffusion samplers RUN`, with settings as in ddim:eta=1 (none: the run's own)."""
    steps: tuple[int, ...] = ()
    """Numbers of denoising steps (none: the sampler's own)."""
    temperatures: tuple[float, ...] = (0.5, 0.75, 1.0)

    def check(self) -> None:
        """Raises UserError for values that are not allowed."""
        super().check()
        if min(self.steps, default=1) < 1 or min(self.temperatures, default=1.0) <= 0.0:
            raise UserError("Each of --steps must be at least 1, and each of --temperatures above 0.")
