"""`textdiffusion plot RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import UserError
from .output import note, print_json, status
from .parsing import RunName, check_folders


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Plot cross-entropy against the noise level: how well a run predicts, and the curve it fitted in training."""

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    out: str = "noise.png"
    """The image to write: .png, .svg or .pdf (needs the extra `plot`)."""
    data: str = ""
    """Measure on this text (empty = the part that the run held out)."""
    levels: int = 48
    """Number of noise levels."""
    windows: int = 16
    """Number of windows per noise level."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""
    json: bool = False
    """Also print the points as JSON."""

    def execute(self) -> None:
        if self.levels < 2:
            raise UserError("--levels must be at least 2.")
        if self.windows < 1:
            raise UserError("--windows must be at least 1.")
        check_folders(out=self.out)
        from ..data.prepare import default_cache
        from ..evaluation.heldout import held_out
        from ..evaluation.noise_curve import noise_curve
        from ..evaluation.report.plots import new_figure, plot_noise_curve
        from ..inference.api import TextDiffusion

        figure = new_figure()  # fails early where matplotlib is missing
        run = TextDiffusion.from_pretrained(self.run, device=self.device)
        text = held_out(run, default_cache(), self.data, self.windows)
        with status("Measuring ...") as show:
            curve = noise_curve(
                run.model, text, levels=self.levels, progress=lambda done: show(f"Measuring: {done:.0%}")
            )
        plot_noise_curve(figure, curve, f"{run.config.recipe} on {text.name}", Path(self.out))
        if self.json:
            fitted = [None] * len(curve.noise) if curve.predicted_loss is None else curve.predicted_loss.tolist()
            points = zip(curve.noise.tolist(), curve.nats.tolist(), fitted, strict=True)
            print_json([{"noise": x, "nats": y, "fitted": z} for x, y, z in points])
        note(f"Saved {self.out}.")
