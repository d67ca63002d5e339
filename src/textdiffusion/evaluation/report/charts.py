"""Charts as SVG inside a page: lines and text in the page's colours, at the size of a phone, without script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 270
LEFT, RIGHT, TOP, BOTTOM = 34, 346, 24, 226  # the edges of what is drawn
APART = 14  # between two labels

Point = tuple[float, float]

STYLE = """
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .rule { stroke: var(--soft); stroke-dasharray: 1 3; }
svg .line { fill: none; stroke: var(--at); stroke-width: 1.75; stroke-linejoin: round; }
svg .ordered { stroke-dasharray: 5 3; }
svg .band { fill: var(--at); opacity: .14; }
svg .dot { fill: var(--at); }
svg .badge { fill: var(--paper); stroke: var(--at); stroke-width: 1.25; }
svg .number { font-size: 10px; font-weight: 600; text-anchor: middle; fill: var(--at); }
svg .mark { fill: none; stroke: var(--soft); stroke-width: 1.5; }
svg .best { stroke: var(--ink); stroke-width: 2; }
"""


@dataclass(frozen=True)
class Axis:
    """A title with its unit, and the range that is shown."""

    title: str
    low: float
    high: float

    def ticks(self) -> list[float]:
        """Four to eight round numbers."""
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 8)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Series:
    """A line from left to right. `colour` is any of CSS; `errors` make a band; `label` is a word or two of text."""

    name: str
    points: Sequence[Point]
    colour: str
    label: str
    errors: Sequence[float] = ()
    ordered: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A reference value. `best` is what one wishes to be near."""

    name: str
    at: Point
    best: bool = False


def chart(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    diagonal: bool = False,
    along: bool = False,
    style: str = "",
) -> str:
    """An SVG element. Labels stand at the ends of lines, or with `along` on them, each at a place of its own.

    With a `style` it is a file of its own.
    """

    def px(value: float) -> float:
        return LEFT + (value - x.low) / (x.high - x.low) * (RIGHT - LEFT)

    def py(value: float) -> float:
        return BOTTOM - (value - y.low) / (y.high - y.low) * (BOTTOM - TOP)

    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{px(a):.1f},{py(b):.1f}" for a, b in points)

    name = escape(title, quote=True)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}"'
        + (f' xmlns="http://www.w3.org/2000/svg"><style>{style}</style>' if style else ">"),
    ]
    for value in y.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {py(value):.1f}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{py(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x.ticks():
        parts.append(f'<text x="{px(value):.1f}" y="{BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
        parts.append(f'<path class="grid" d="M{px(value):.1f} {BOTTOM}v4"/>')
    parts.append(f'<text x="0" y="11">{escape(y.title)}</text>')
    parts.append(f'<text x="{RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(x.title)}</text>')
    box = f"{LEFT} {TOP} {RIGHT - LEFT} {BOTTOM - TOP}"
    parts.append('<svg x="{}" y="{}" width="{}" height="{}"'.format(*box.split()) + f' viewBox="{box}">')  # clips
    if diagonal:
        parts.append(f'<polyline class="rule" fill="none" points="{path([(x.low, x.low), (x.high, x.high)])}"/>')
    for each in series:
        parts.append(f'<g style="--at:{each.colour}"><title>{escape(each.name)}</title>')
        if each.errors:
            sides = list(zip(each.points, each.errors, strict=True))
            edge = [(a, b + e) for (a, b), e in sides] + [(a, b - e) for (a, b), e in reversed(sides)]
            parts.append(f'<polygon class="band" points="{path(edge)}"/>')
        kind = "line ordered" if each.ordered else "line"
        parts.append(f'<polyline class="{kind}" points="{path(each.points)}"/>')
        dots = each.points if each.dots else []
        parts += [f'<circle class="dot" cx="{px(a):.1f}" cy="{py(b):.1f}" r="3"/>' for a, b in dots]
        parts.append("</g>")
    parts.append("</svg>")
    for mark in marks:
        a, b = min(max(px(mark.at[0]), LEFT), RIGHT), min(max(py(mark.at[1]), TOP), BOTTOM)
        cross = f'<path class="mark" d="M{a - 4:.1f} {b - 4:.1f}l8 8m0-8l-8 8"/>'
        shape = f'<circle class="mark best" cx="{a:.1f}" cy="{b:.1f}" r="5"/>' if mark.best else cross
        side = f'x="{a - 8:.1f}" text-anchor="end"' if a > (LEFT + RIGHT) / 2 else f'x="{a + 8:.1f}"'
        parts.append(f'<g>{shape}<text {side} y="{b + 4:.1f}">{escape(mark.name)}</text></g>')
    for each, (a, b) in zip(series, _places(series, px, py, along), strict=True):
        half = 4 + 3.2 * len(each.label)
        rect = f'x="{a - half:.1f}" y="{b - 7:.1f}" width="{2 * half:.1f}" height="14" rx="7"'
        text = f'<text class="number" x="{a:.1f}" y="{b + 3.5:.1f}">{escape(each.label)}</text>'
        parts.append(f'<g style="--at:{each.colour}"><rect class="badge" {rect}/>{text}</g>')
    return "".join([*parts, "</svg>"])


def _places(
    series: Sequence[Series], px: Callable[[float], float], py: Callable[[float], float], along: bool
) -> Iterator[Point]:
    """Where labels go: staggered along the lines, or at their ends, moved apart from top to bottom."""
    if along:
        for number, each in enumerate(series):
            share = 0.3 + 0.5 * (number + 0.5) / len(series)
            goal = LEFT + share * (RIGHT - LEFT)
            right = next((i for i, (a, _) in enumerate(each.points) if px(a) >= goal), len(each.points) - 1)
            (a, b), (c, d) = each.points[max(0, right - 1)], each.points[right]
            part = min(1.0, (goal - px(a)) / (px(c) - px(a))) if c > a else 1.0
            yield px(a + part * (c - a)), py(b + part * (d - b))
        return
    ends = [(min(px(each.points[-1][0]), RIGHT), min(max(py(each.points[-1][1]), TOP), BOTTOM)) for each in series]
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    lows: dict[int, float] = {}
    before = -math.inf
    for i in order:
        lows[i] = before = max(ends[i][1], before + APART)
    over = max(0.0, before - BOTTOM)
    yield from ((a, lows[i] - over) for i, (a, _) in enumerate(ends))
