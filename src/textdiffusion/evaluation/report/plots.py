"""The noise curve as PNG, SVG or PDF, with matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UserError
from ...core.files import atomic
from ..noise_curve import NoiseCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure() -> Figure:
    """An empty figure. Raises UserError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # pyplot looks for a screen and keeps state
    except ImportError:
        raise UserError("A plot needs matplotlib: pip install 'textdiffusion[plot]'.") from None
    return Figure(figsize=(7, 4.5), dpi=120, layout="constrained")


def plot_noise_curve(figure: Figure, curve: NoiseCurve, title: str, path: Path) -> None:
    """Cross-entropy against noise as points, and the curve that the time density learned in training as a line.

    The ending of `path` sets the format. Raises UserError for a format that matplotlib does not know, or if the file
    cannot be written.
    """
    axes = figure.subplots()
    if curve.predicted_loss is not None:
        axes.plot(curve.noise, curve.predicted_loss, color="tab:orange", label="learned in training")
    axes.plot(curve.noise, curve.nats, "o", markersize=4, color="tab:blue", label="held-out text")
    axes.set(title=title, ylabel="cross-entropy, nats per token", ylim=(0, None))
    axes.set_xlabel("noise level sigma" if curve.is_sigma else "fraction of tokens replaced")
    axes.set_xscale("log" if curve.is_sigma else "linear")
    axes.grid(alpha=0.3)
    axes.legend()
    file_format = path.suffix.removeprefix(".").lower() or "png"
    if file_format not in (formats := figure.canvas.get_supported_filetypes()):
        raise UserError(f"{path} cannot be written: its name must end in one of .{', .'.join(sorted(formats))}.")
    with atomic(path) as partial:
        figure.savefig(partial, format=file_format)
