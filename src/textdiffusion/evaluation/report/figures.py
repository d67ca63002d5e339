"""The charts of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

import numpy as np

from ..bench import RunResults
from ..compare import Comparison
from ..frontier import NO_LIKELIHOOD, FrontierPoint
from ..sample_report import REAL
from .charts import Axis, Mark, Point, Series, chart
from .tables import colour, details, key, number_cell, run_cell, table, text_cell

QUALITY, DIVERSITY = "forward bits (characters)", "pooled entropy"
BITS = "bits per character"
FRACTIONS = (0.25, 0.5, 0.75)  # of the information that pure noise removes


def _figure(svg: str, runs: Sequence[RunResults], caption: str) -> str:
    keys = "".join(f"<li>{key(number, len(runs))} {escape(run.name)}</li>" for number, run in enumerate(runs))
    return f'<figure>{svg}<ul class="keys">{keys}</ul><figcaption>{caption}</figcaption></figure>'


def _series(
    runs: Sequence[RunResults],
    points: Callable[[RunResults], Sequence[Point]],
    errors: Callable[[RunResults], Sequence[float]],
) -> list[Series]:
    def line(number: int, run: RunResults, run_points: Sequence[Point]) -> Series:
        dashed = run.curve is not None and run.curve.sees_clean_prefix
        return Series(run.name, run_points, colour(number, len(runs)), str(number + 1), errors(run), dashed)

    return [line(number, run, run_points) for number, run in enumerate(runs) if (run_points := points(run))]


def training(runs: Sequence[RunResults]) -> str:
    """Bits on validation text against CPU-seconds of training."""
    validations = {run.name: run.training.validations if run.training else () for run in runs}
    lines = _series(
        runs,
        lambda run: [(seconds, bits) for seconds, bits, _ in validations[run.name]],
        lambda run: [error or 0.0 for *_, error in validations[run.name]],
    )
    if not any(lines):
        return "<p>None of these runs has recorded validations.</p>"
    points = [point for line in lines for point in line.points]
    final = sorted(line.points[-1][1] for line in lines)
    # Points far above the others are cut, so that the lines below can be distinguished.
    high = min(max(b for _, b in points), final[len(final) // 2] * 1.6)
    low = min(b for _, b in points)
    pad = 0.05 * (high - low) + 1e-3
    x = Axis("training, CPU-seconds", 0.0, max(a for a, _ in points) or 1.0)
    y = Axis(f"validation, {BITS}", low - pad, high + pad)
    caption = (
        "Bound on validation text, averaged weights. Bands are standard errors. Each point is measured on few windows, "
        "so it is less precise than the table. Points above the frame are cut."
    )
    return _figure(chart("Validation during training", x, y, lines), runs, caption)


def curves(runs: Sequence[RunResults]) -> str:
    """Cross-entropy at equal remaining information, and how much of it context removes."""
    measured = [run.curve for run in runs if run.curve]
    if not measured:
        return "<p>Noise levels were not measured.</p>"
    full = max(max(curve.remaining) for curve in measured)
    high = max(full, *(bits for curve in measured for bits in curve.bits))
    x = Axis(f"remaining information, {BITS}", 0.0, full)
    lines = _series(
        runs,
        lambda run: list(zip(run.curve.remaining, run.curve.bits, strict=True)) if run.curve else [],
        lambda run: run.curve.errors if run.curve else (),
    )
    gains = [replace(line, points=[(a, a - b) for a, b in line.points], errors=()) for line in lines]
    heights = [b for line in gains for _, b in line.points]
    highest, lowest = max(0.05, *heights), min(0.0, *heights)
    title, y = "Cross-entropy against remaining information", Axis(f"cross-entropy, {BITS}", 0.0, high)
    entropy_chart = chart(title, x, y, lines, diagonal=True, labels_on_lines=True)
    # Losses larger than the largest gain are cut, unless no run gains.
    gain_axis = Axis(f"gain from context, {BITS}", max(lowest, -highest) if highest > 0.05 else lowest, highest * 1.05)
    gain_chart = chart("Gain from context", x, gain_axis, gains, labels_on_lines=True)
    caption = (
        "Remaining information is the entropy of a token given only its own noised state and the token frequencies. It "
        "depends on the noise process and not on a network, so masks, random tokens and Gaussian noise share the axis: "
        "clean text on the left, pure noise on the right. The dotted diagonal is an ideal model without context. Bands "
        "are standard errors over windows. Dashed lines: the model also sees clean text before each position (blocks, "
        "autoregressive), which lowers the line."
    )
    columns = [("run", ""), *((f"{fraction:.0%} remaining", BITS) for fraction in FRACTIONS)]
    rows = []
    for number, run in enumerate(runs):
        if run.curve:
            x_sorted, y_sorted = zip(*sorted(zip(run.curve.remaining, run.curve.bits, strict=True)), strict=True)
            values = np.interp([fraction * full for fraction in FRACTIONS], x_sorted, y_sorted)
            cells = "".join(number_cell(float(value), ".3f") for value in values)
            rows.append(run_cell(number, len(runs), run.name) + cells)
    return (
        _figure(entropy_chart, runs, caption)
        + _figure(gain_chart, runs, "The same as distance below the diagonal: higher is better.")
        + table("Cross-entropy by remaining information", columns, rows)
    )


def frontier(comparison: Comparison) -> str:
    """One chart per run, all on the same axes, and the numbers."""
    runs, points = comparison.runs, comparison.points
    if len(points) - len(runs) < 5:
        return "<p>Texts were generated with only one setting.</p>"
    panels = "".join(
        f"<figure><h3>{key(i, len(runs))} {escape(run.name)}</h3>{frontier_chart(run.name, points)}</figure>"
        for i, run in enumerate(runs)
    )
    columns = [("run", ""), ("sampler", ""), ("steps", "number"), ("T", "temperature"), ("network calls", "per text")]
    columns += [(DIVERSITY, "bits per word"), (QUALITY, BITS)]
    has_exact = any(point.likelihood for point in points)
    columns += [("exact likelihood", BITS)] if has_exact else []
    rows: tuple[list[str], list[str]] = ([], [])
    for point in points:
        setting = point.setting
        cells = f'<th scope="row">{escape(point.run)}</th>{text_cell(setting.sampler if setting else "")}'
        numbers = (setting.steps, setting.temperature, point.nfe) if setting else (None, None, None)
        values = [point.values[DIVERSITY], point.values[QUALITY]]
        exact = [point.likelihood.bits if point.likelihood else None] if has_exact else []
        rows[setting is None].append(cells + "".join(map(number_cell, (*numbers, *values, *exact))))
    note = f"<p>No exact likelihood (–): {escape(NO_LIKELIHOOD)}</p>" if has_exact else ""
    numbers = details("Show the numbers", table("Settings", columns, *rows) + note)
    return f'<div class="panels">{panels}</div>' + (_exact_bits(comparison) if has_exact else "") + numbers


def _exact_bits(comparison: Comparison) -> str:
    """Exact bits of held-out text against network calls: one line over numbers of steps per run and sampler."""
    runs, groups = comparison.runs, dict[tuple[str, str], list[Point]]()
    for point in comparison.points:
        if point.setting and point.likelihood:
            group = groups.setdefault((point.run, point.setting.sampler), [])
            group.append((point.nfe or 0.0, point.likelihood.bits))
    numbers = {run.name: number for number, run in enumerate(runs)}
    lines = [
        Series(f"{name}, {sampler}", sorted(group), colour(numbers[name], len(runs)), str(numbers[name] + 1), dots=True)
        for (name, sampler), group in groups.items()
    ]
    (low_x, high_x), (low, high) = (
        (min(values), max(values))
        for values in zip(*(position for group in groups.values() for position in group), strict=True)
    )
    pad_x, pad = 0.05 * (high_x - low_x) + 1e-3, 0.07 * (high - low) + 1e-3
    x, y = Axis("network calls per text", low_x - pad_x, high_x + pad_x), Axis(BITS, low - pad, high + pad)
    caption = "The exact likelihood of held-out text under what a sampler draws, a line for each; lower is better."
    return _figure(chart("Exact likelihood against network calls", x, y, lines), runs, caption)


def frontier_chart(name: str, points: Sequence[FrontierPoint], style: str = "") -> str:
    """Quality against diversity of a run's texts: one line over temperatures per sampler and number of steps."""

    def position(point: FrontierPoint) -> Point:
        return point.values[DIVERSITY] or 0.0, point.values[QUALITY] or 0.0

    points = [point for point in points if point.values[DIVERSITY] is not None and point.values[QUALITY] is not None]
    limits = [(min(values), max(values)) for values in zip(*map(position, points), strict=True)]
    titles = f"{DIVERSITY}, bits per word", f"forward bits, {BITS}"
    x, y = (
        Axis(title, low - 0.07 * (high - low) - 1e-6, high + 0.07 * (high - low) + 1e-6)
        for title, (low, high) in zip(titles, limits, strict=True)
    )
    groups: dict[tuple[int, str], list[tuple[float, Point]]] = {}
    for point in points:
        if point.run == name and (setting := point.setting):
            group = groups.setdefault((setting.steps, setting.sampler), [])
            group.append((setting.temperature, position(point)))
    several = len({sampler for _, sampler in groups}) > 1
    lines = []
    for number, ((steps, sampler), group) in enumerate(sorted(groups.items())):
        group.sort(key=lambda pair: -pair[0])  # the label is at the lowest temperature
        title = f"{sampler}, {steps} steps, T = {', '.join(f'{temperature:g}' for temperature, _ in group)}"
        label = f"{sampler} {steps}" if several else str(steps)
        path = [point for _, point in group]
        lines.append(Series(title, path, colour(number, len(groups)), label, dots=True))
    marks = [Mark(point.run, position(point), point.run == REAL) for point in points if point.setting is None]
    return chart(f"{name}: forward bits against entropy", x, y, lines, marks, style=style)
