"""Pictures of curves, with matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UserError
from ..noise_curve import NoiseCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank() -> Figure:
    """A picture with nothing in it yet. Raises UserError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # pyplot would look for a screen, and keep state
    except ImportError:
        raise UserError("A plot needs matplotlib: pip install 'textdiffusion[plot]'.") from None
    return Figure(figsize=(7, 4.5), dpi=120, layout="constrained")


def write_curve(figure: Figure, curve: NoiseCurve, title: str, path: Path) -> None:
    """Cross-entropy against noise as points, and the curve that training fitted as a line, in a file of any format that
    matplotlib knows by its ending.

    Raises UserError for other endings, or if the file cannot be written.
    """
    axes = figure.subplots()
    if curve.fitted is not None:
        axes.plot(curve.noise, curve.fitted, color="tab:orange", label="fitted in training")
    axes.plot(curve.noise, curve.nats, "o", markersize=4, color="tab:blue", label="held-out text")
    axes.set(title=title, ylabel="cross-entropy, nats per token", ylim=(0, None))
    axes.set_xlabel("noise level sigma" if curve.sigma else "share of tokens replaced")
    axes.set_xscale("log" if curve.sigma else "linear")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {error}.") from None
