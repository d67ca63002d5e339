"""The charts of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

import numpy as np

from ...views import frames as palette
from ..bench import RunResults
from ..compare import Comparison, FrontierPoint
from ..sample_report import REAL
from .charts import Axis, Mark, Series, chart

QUALITY, VARIETY = "forward bits (characters)", "pooled entropy"


BITS = "bits per character"


SHARES = (0.25, 0.5, 0.75)  # of the information in pure noise


def _figure(svg: str, runs: Sequence[RunResults], caption: str) -> str:
    keys = "".join(f"<li>{key(number, len(runs))} {escape(run.name)}</li>" for number, run in enumerate(runs))
    return f'<figure>{svg}<ul class="keys">{keys}</ul><figcaption>{caption}</figcaption></figure>'


def _lines(
    runs: Sequence[RunResults],
    points: Callable[[RunResults], Sequence[tuple[float, float]]],
    errors: Callable[[RunResults], Sequence[float]],
) -> list[Series]:
    return [
        Series(
            run.name, points(run), colour(i, len(runs)), str(i + 1), errors(run), bool(run.curve and run.curve.ordered)
        )
        for i, run in enumerate(runs)
        if points(run)
    ]


def training(runs: Sequence[RunResults]) -> str:
    """Validations against what training took."""

    def points(run: RunResults) -> list[tuple[float, float]]:
        return [(seconds, bits) for seconds, bits, _ in run.trained.validations] if run.trained else []

    lines = _lines(
        runs, points, lambda run: [error or 0.0 for *_, error in run.trained.validations] if run.trained else []
    )
    if not any(lines):
        return "<p>No run of these kept validations of its training.</p>"
    everything = [point for line in lines for point in line.points]
    lasts = sorted(line.points[-1][1] for line in lines)
    # What is far above the others is cut, so that these can be told apart.
    high = min(max(b for _, b in everything), lasts[len(lasts) // 2] * 1.6)
    low = min(b for _, b in everything)
    pad = 0.05 * (high - low) + 1e-3
    axes = (
        Axis("training, CPU-seconds", 0.0, max(a for a, _ in everything) or 1.0),
        Axis(f"validation, {BITS}", low - pad, high + pad),
    )
    caption = (
        "Bound on validation text, averaged weights. Bands are standard errors. Each point is drawn from few windows, "
        "so it is less exact than the table; what is above the frame is cut."
    )
    return _figure(chart("Validation during training", *axes, lines), runs, caption)


def curves(runs: Sequence[RunResults]) -> str:
    """Cross-entropy at equal information, as it is and as what context adds."""
    drawn = [run.curve for run in runs if run.curve]
    if not drawn:
        return "<p>Noise levels were not measured.</p>"
    high = max(max(*curve.remaining, *curve.bits) for curve in drawn)

    x = Axis(f"remaining information, {BITS}", 0.0, high)
    plain = _lines(
        runs,
        lambda run: list(zip(run.curve.remaining, run.curve.bits, strict=True)) if run.curve else [],
        lambda run: run.curve.errors if run.curve else (),
    )
    gains = [replace(line, points=[(a, a - b) for a, b in line.points], errors=()) for line in plain]
    most = max(0.05, *(b for line in gains for _, b in line.points))
    least = min(0.0, *(b for line in gains for _, b in line.points))
    one = chart(
        "Cross-entropy against remaining information",
        x,
        Axis(f"cross-entropy, {BITS}", 0.0, high),
        plain,
        diagonal=True,
        along=True,
    )
    two = chart(
        "What context adds", x, Axis(f"supplied by context, {BITS}", max(least, -most), most * 1.05), gains, along=True
    )
    caption = (
        "Remaining information: what is left to know of a character when all one sees is its own noised state and how "
        "often each token comes. It depends on the process and its states, and on no network, so masks, random tokens "
        "and Gaussian noise share the axis; left is clean, right is pure noise. The dotted diagonal is an ideal model "
        "that uses no context. Bands are standard errors over windows. Dashed: text before a place is clean (blocks, "
        "left to right), so the line lies lower."
    )
    columns = [("run", ""), *((f"{share:.0%} remain", "bits/char") for share in SHARES)]
    rows, full = [], max(max(curve.remaining) for curve in drawn)
    for number, run in enumerate(runs):
        if run.curve:
            x_sorted, y_sorted = zip(*sorted(zip(run.curve.remaining, run.curve.bits, strict=True)), strict=True)
            at = np.interp([share * full for share in SHARES], x_sorted, y_sorted)
            cells = "".join(cell(float(value), ".3f") for value in at)
            rows.append(f'<th scope="row">{key(number, len(runs))} {escape(run.name)}</th>{cells}')
    return (
        _figure(one, runs, caption)
        + _figure(two, runs, "The same, as the distance below the diagonal: higher is better.")
        + table("Cross-entropy where so much information remains", columns, rows, [])
    )


def frontier(found: Comparison) -> str:
    """A chart for each run, all on the same axes, and the figures."""
    if len(found.spots) - len(found.runs) < 5:
        return "<p>Texts were written under one setting only.</p>"
    panels = "".join(
        f"<figure><h3>{key(i, len(found.runs))} {escape(run.name)}</h3>{panel(run.name, found.spots)}</figure>"
        for i, run in enumerate(found.runs)
    )
    columns = [
        ("run", ""),
        ("sampler", ""),
        ("steps", "number"),
        ("T", "temperature"),
        ("calls", "a text"),
        (VARIETY, "bits/word"),
        (QUALITY, "bits/char"),
    ]
    rows: tuple[list[str], list[str]] = ([], [])
    for spot in found.spots:
        how = spot.setting
        cells = f'<th scope="row">{escape(spot.run)}</th>{word(how.sampler if how else "")}'
        cells += "".join(cell(v) for v in ((how.steps, how.temperature, spot.nfe) if how else (None, None, None)))
        rows[how is None].append(cells + cell(spot.values[VARIETY]) + cell(spot.values[QUALITY]))
    every = f"<details><summary>The figures</summary>{table('Settings', columns, *rows)}</details>"
    return f'<div class="panels">{panels}</div>{every}'


def panel(name: str, spots: Sequence[FrontierPoint], style: str = "") -> str:
    """Quality against variety of a run's texts: a line for each sampler and number of steps, along temperatures."""

    def at(spot: FrontierPoint) -> tuple[float, float]:
        return spot.values[VARIETY] or 0.0, spot.values[QUALITY] or 0.0

    spots = [spot for spot in spots if spot.values[VARIETY] is not None and spot.values[QUALITY] is not None]
    every = [at(spot) for spot in spots]
    (left, right), (low, high) = ((min(side), max(side)) for side in zip(*every, strict=True))
    x, y = (
        Axis(title, a - 0.07 * (b - a) - 1e-6, b + 0.07 * (b - a) + 1e-6)
        for title, a, b in ((f"{VARIETY}, bits per word", left, right), (f"forward n-gram, {BITS}", low, high))
    )
    own = [spot for spot in spots if spot.run == name and spot.setting]
    kinds = sorted({(spot.setting.steps, spot.setting.sampler) for spot in own if spot.setting})
    several = len({sampler for _, sampler in kinds}) > 1
    lines = []
    for number, (steps, sampler) in enumerate(kinds):
        line = [spot for spot in own if spot.setting and (spot.setting.steps, spot.setting.sampler) == (steps, sampler)]
        line.sort(key=lambda spot: -spot.setting.temperature if spot.setting else 0.0)  # the label is at the last
        told = f"{sampler}, {steps} steps, T = {', '.join(f'{s.setting.temperature:g}' for s in line if s.setting)}"
        label = f"{sampler} {steps}" if several else str(steps)
        lines.append(Series(told, [at(spot) for spot in line], colour(number, len(kinds)), label, dots=True))
    marks = [Mark(spot.run, at(spot), spot.run == REAL) for spot in spots if spot.setting is None]
    return chart(f"{name}: forward bits against entropy", x, y, lines, marks, style=style)


def colour(number: int, of: int) -> str:
    """Of a run by its rank: a step of the one scale of colours."""
    return f"var(--c{round(number * (palette.LEVELS - 1) / max(1, of - 1))})"


def key(number: int, of: int) -> str:
    """The rank of a run in its colour."""
    return f'<span class="key" style="--at:{colour(number, of)}">{number + 1}</span>'


def table(name: str, columns: Sequence[tuple[str, str]], rows: Sequence[str], references: Sequence[str]) -> str:
    """A table in a box of its own width. Columns are a title and a unit (empty: words); rows are cells in HTML."""
    head = "".join(
        f'<th scope="col" aria-sort="none"{"" if unit else " class=word"}>'
        f'<button type="button">{escape(title)}</button><small>{escape(unit)}</small></th>'
        for title, unit in columns
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    apart = "".join(f"<tr>{row}</tr>" for row in references)
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<caption>{escape(name)}</caption>"
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tbody class="apart">{apart}</tbody></table></div>'
    )


def word(text: str) -> str:
    """A cell of text."""
    return f'<td class="word">{escape(text)}</td>'


def cell(value: float | int | None, form: str = ".4g", sign: str = "", flag: str = "") -> str:
    """A number in the format `form`; what cannot be sorted comes last."""
    text = "–" if value is None else f"{sign}{value:{form}}"
    mark = f' <abbr title="{escape(flag, quote=True)}">!</abbr>' if flag else ""
    return f'<td data-v="{"" if value is None else value}">{text}{mark}</td>'
