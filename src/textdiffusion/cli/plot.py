"""`textdiffusion plot RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import UserError
from .output import note, print_json, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Command:
    """Draw cross-entropy against noise: how well a run predicts from little noise to all, and the curve it fitted."""

    run: RunName
    """The run's folder, or its repository id on the hub."""
    out: str = "noise.png"
    """The picture to write: .png, .svg or .pdf (extra `plot`)."""
    data: str = ""
    """The text to measure on (empty: what the run kept back from its own)."""
    levels: int = 48
    """Noise levels."""
    windows: int = 16
    """Windows of text at each level."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    json: bool = False
    """Print the points as JSON too."""

    def execute(self) -> None:
        if self.levels < 2 or self.windows < 1:
            raise UserError("--levels must be at least 2, and --windows at least 1.")
        from ..data.prepare import default_cache
        from ..evaluation.heldout import held_out
        from ..evaluation.noise_curve import noise_curve
        from ..evaluation.report.plots import new_figure, plot_noise_curve
        from ..inference.api import TextDiffusion

        figure = new_figure()  # or what is missing is said before the work
        model = TextDiffusion.from_pretrained(self.run, device=self.device)
        text = held_out(model, default_cache(), self.data, self.windows)
        with status("Measuring ...") as say:
            curve = noise_curve(model.model, text, levels=self.levels, progress=lambda s: say(f"Measuring: {s:.0%}"))
        plot_noise_curve(figure, curve, f"{model.config.recipe} on {text.name}", Path(self.out))
        if self.json:
            fitted = [None] * len(curve.noise) if curve.predicted_loss is None else curve.predicted_loss.tolist()
            points = zip(curve.noise.tolist(), curve.nats.tolist(), fitted, strict=True)
            print_json([{"noise": x, "nats": y, "fitted": z} for x, y, z in points])
        note(f"Saved {self.out}.")
