"""Line charts as SVG inside a page: in the page's colours, at the size of a phone, without script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 270
LEFT, RIGHT, TOP, BOTTOM = 34, 346, 24, 226  # the edges of the plot area
LABEL_DISTANCE = 14  # of two labels, at least

Point = tuple[float, float]

STYLE = """
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .rule { stroke: var(--soft); stroke-dasharray: 1 3; }
svg .line { fill: none; stroke: var(--colour); stroke-width: 1.75; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 5 3; }
svg .band { fill: var(--colour); opacity: .14; }
svg .dot { fill: var(--colour); }
svg .badge { fill: var(--paper); stroke: var(--colour); stroke-width: 1.25; }
svg .number { font-size: 10px; font-weight: 600; text-anchor: middle; fill: var(--colour); }
svg .mark { fill: none; stroke: var(--soft); stroke-width: 1.5; }
svg .target { stroke: var(--ink); stroke-width: 2; }
"""


@dataclass(frozen=True)
class Axis:
    """A title with its unit, and the visible range."""

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
    """A line from left to right. `colour` is any CSS colour; `errors` make a band; `label` is a word or two."""

    name: str
    points: Sequence[Point]
    colour: str
    label: str
    errors: Sequence[float] = ()
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A reference point. `is_target`: the point to be near."""

    name: str
    point: Point
    is_target: bool = False


def chart(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    diagonal: bool = False,
    labels_on_lines: bool = False,
    style: str = "",
) -> str:
    """An SVG element. Labels are at the ends of lines or, with `labels_on_lines`, spread along them.

    With a `style` the element is a complete SVG file.
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
    parts.append('<svg x="{}" y="{}" width="{}" height="{}" viewBox="{box}">'.format(*box.split(), box=box))  # clips
    if diagonal:
        parts.append(f'<polyline class="rule" fill="none" points="{path([(x.low, x.low), (x.high, x.high)])}"/>')
    for each in series:
        parts.append(f'<g style="--colour:{each.colour}"><title>{escape(each.name)}</title>')
        if each.errors:
            sides = list(zip(each.points, each.errors, strict=True))
            edge = [(a, b + e) for (a, b), e in sides] + [(a, b - e) for (a, b), e in reversed(sides)]
            parts.append(f'<polygon class="band" points="{path(edge)}"/>')
        classes = "line dashed" if each.dashed else "line"
        parts.append(f'<polyline class="{classes}" points="{path(each.points)}"/>')
        dots = each.points if each.dots else []
        parts += [f'<circle class="dot" cx="{px(a):.1f}" cy="{py(b):.1f}" r="3"/>' for a, b in dots]
        parts.append("</g>")
    parts.append("</svg>")
    centres = [(_clip(px(a), LEFT, RIGHT), _clip(py(b), TOP, BOTTOM)) for a, b in (mark.point for mark in marks)]
    for mark, (a, b), label_y in zip(marks, centres, _apart([b for _, b in centres]), strict=True):
        cross = f'<path class="mark" d="M{a - 4:.1f} {b - 4:.1f}l8 8m0-8l-8 8"/>'
        shape = f'<circle class="mark target" cx="{a:.1f}" cy="{b:.1f}" r="5"/>' if mark.is_target else cross
        side = f'x="{a - 8:.1f}" text-anchor="end"' if a > (LEFT + RIGHT) / 2 else f'x="{a + 8:.1f}"'
        parts.append(f'<g>{shape}<text {side} y="{label_y + 4:.1f}">{escape(mark.name)}</text></g>')
    for each, (a, b) in zip(series, _label_positions(series, px, py, labels_on_lines), strict=True):
        half = 4 + 3.2 * len(each.label)
        rect = f'x="{a - half:.1f}" y="{b - 7:.1f}" width="{2 * half:.1f}" height="14" rx="7"'
        text = f'<text class="number" x="{a:.1f}" y="{b + 3.5:.1f}">{escape(each.label)}</text>'
        parts.append(f'<g style="--colour:{each.colour}"><rect class="badge" {rect}/>{text}</g>')
    return "".join([*parts, "</svg>"])


def _label_positions(
    series: Sequence[Series], px: Callable[[float], float], py: Callable[[float], float], on_lines: bool
) -> Iterator[Point]:
    """Positions of labels in pixels: staggered along the lines, or at their ends, moved apart from top to bottom."""
    if on_lines:
        for number, each in enumerate(series):
            fraction = 0.3 + 0.5 * (number + 0.5) / len(series)
            goal = LEFT + fraction * (RIGHT - LEFT)
            right = next((i for i, (a, _) in enumerate(each.points) if px(a) >= goal), len(each.points) - 1)
            (a, b), (c, d) = each.points[max(0, right - 1)], each.points[right]
            weight = min(1.0, (goal - px(a)) / (px(c) - px(a))) if c > a else 1.0
            yield px(a + weight * (c - a)), _clip(py(b + weight * (d - b)), TOP, BOTTOM)
        return
    ends = [each.points[-1] for each in series]
    heights = _apart([_clip(py(b), TOP, BOTTOM) for _, b in ends])
    yield from ((min(px(a), RIGHT), height) for (a, _), height in zip(ends, heights, strict=True))


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights of labels, moved down where they would overlap, and all up where the last would leave the frame."""
    moved, before = [0.0] * len(heights), -math.inf
    for i in sorted(range(len(heights)), key=heights.__getitem__):
        moved[i] = before = max(heights[i], before + LABEL_DISTANCE)
    return [height - max(0.0, before - BOTTOM) for height in moved]


def _clip(value: float, low: int, high: int) -> float:
    return min(max(value, low), high)
