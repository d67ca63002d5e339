"""`textdiffusion tune RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import UserError
from .output import note, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Choose the noise levels of sampling from a run's own losses, for `sample RUN --sampler ddim:grid=tuned`.

    Every step then covers an equal change of cross-entropy. Only for runs with Gaussian noise on vectors.
    """

    run: RunName
    """The run's folder."""
    data: str = ""
    """Measure on this text (empty = the run's own)."""
    levels: int = 48
    """Number of noise levels to measure."""
    windows: int = 64
    """Number of windows per noise level."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""

    def execute(self) -> None:
        if self.levels < 4:
            raise UserError("--levels must be at least 4.")
        if self.windows < 1:
            raise UserError("--windows must be at least 1.")
        if not Path(self.run).is_dir():
            raise UserError(f"{self.run} is not a folder; tune writes its grid into the run's folder.")
        from ..config.config import loads
        from ..core.reading import read_text
        from ..data.prepare import default_cache
        from ..diffusion.gaussian import Gaussian
        from ..evaluation.heldout import held_out, training_corpus
        from ..evaluation.noise_curve import tuned_grid
        from ..inference.api import TextDiffusion
        from ..samplers.time_grids import FILE, save_grid

        if (path := Path(self.run) / "config.json").is_file():  # before the weights are read
            config = loads(read_text(path), str(path))
            if not isinstance(config.process, Gaussian):
                raise UserError(
                    f"tune is for runs with Gaussian processes, such as cdcd; {self.run} has process.kind="
                    f"{config.process.kind}."
                )
        run = TextDiffusion.from_pretrained(self.run, device=self.device)
        if not self.data:
            training_corpus(run, default_cache())  # only the text that the run was trained on is read unasked
        text = held_out(run, default_cache(), self.data or run.config.text.data, self.windows)
        with status("Measuring ...") as show:
            times = tuned_grid(
                run.model, text, levels=self.levels, progress=lambda done: show(f"Measuring: {done:.0%}")
            )
        save_grid(times, Path(self.run) / FILE)
        quartiles = run.model.process.sigma(times[[len(times) // 4, -(len(times) // 4) - 1]]).tolist()
        levels = f"half of the steps are at noise levels from {quartiles[0]:.3g} to {quartiles[1]:.3g}"
        note(f"Saved {Path(self.run) / FILE}: {levels}.")
