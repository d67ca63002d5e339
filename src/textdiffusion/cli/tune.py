"""`textdiffusion tune RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import UserError
from .output import note, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Command:
    """Choose the noise levels of sampling from a run's own losses, for `sample RUN --sampler ddim:grid=tuned`.

    Steps then stand where cross-entropy changes: each passes as much of it as any other.
    """

    run: RunName
    """The run's folder."""
    data: str = ""
    """The text to measure on (empty: the run's own)."""
    levels: int = 48
    """Noise levels measured."""
    windows: int = 64
    """Windows of text at each level."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def execute(self) -> None:
        if self.levels < 4 or self.windows < 1:
            raise UserError("--levels must be at least 4, and --windows at least 1.")
        if not Path(self.run).is_dir():
            raise UserError(f"{self.run} is no folder: the grid is written beside a run, so it must be one here.")
        from ..data.prepare import default_cache
        from ..evaluation.heldout import held_out
        from ..evaluation.noise_curve import tuned_grid
        from ..inference.api import TextDiffusion
        from ..samplers.time_grids import FILE, save_grid

        model = TextDiffusion.from_pretrained(self.run, device=self.device)
        text = held_out(model, default_cache(), self.data or model.config.text.data, self.windows)
        with status("Measuring ...") as say:
            times = tuned_grid(model.model, text, levels=self.levels, progress=lambda s: say(f"Measuring: {s:.0%}"))
        save_grid(times, Path(self.run) / FILE)
        middle = model.model.process.sigma(times[[len(times) // 4, -(len(times) // 4) - 1]]).tolist()
        levels = f"half of the steps are at noise levels from {middle[0]:.3g} to {middle[1]:.3g}"
        note(f"Saved {Path(self.run) / FILE}: {levels}.")
