"""The denoising as an animated picture, for pages that play nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.files import atomic
from . import frames as palette
from .frames import Frame, State, evenly, visible

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS, _LINES, _MOST = 64, 36, 60  # characters across, lines of text, frames
_SIZE, _MARGIN = 16, 16  # pixels
_PLAY, _HOLD = 6000, 3000  # milliseconds for all frames, and more for the last
_INK, _SOFT, _HOLE = "#e8eaee", "#8b929e", "#333945"


def write_gif(frames: Iterable[Frame], path: str | Path) -> None:
    """Write at most 60 of `frames`, evenly spaced, as an animation to `path`; the last one stays for three seconds.

    Raises ValueError if there is no frame, UserError without pillow or if the file cannot be written.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UserError("A GIF needs pillow: pip install 'textdiffusion[plot]'.") from None
    every = list(frames)
    if not every:
        raise ValueError("there are no frames to write")
    chosen = [every[i] for i in evenly(len(every) - 1, _MOST)]
    pen = _Pen()
    blocks = [_layout(frame) for frame in chosen]
    height = max(len(lines) for lines in blocks)
    colours = Image.new("P", (1, 1))
    colours.putpalette(_shades())
    pictures = [
        pen.picture(frame, lines, height).quantize(palette=colours, dither=Image.Dither.NONE)
        for frame, lines in zip(chosen, blocks, strict=True)
    ]
    durations = [max(40, min(500, _PLAY // len(pictures)))] * len(pictures)
    durations[-1] += _HOLD
    with atomic(path) as partial:
        pictures[0].save(
            partial, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True
        )


# What stands in one place of the grid: a character (None: a block) and its colour.
_Glyph = tuple[str | None, str]


def _layout(frame: Frame) -> list[list[_Glyph]]:
    """Lines of at most `_COLUMNS` places; rows that find no room are counted in a last line."""
    lines: list[list[_Glyph]] = []
    for number, cells in enumerate(frame.rows):
        row: list[_Glyph] = []
        for text, confidence, state in cells:
            if state is State.UNDECIDED:
                row.append((None, _HOLE))
                continue
            colour = _INK if state is State.GIVEN else palette.ON_DARK[palette.level(confidence)]
            row += [(sign, _SOFT if sign == "⏎" else colour) for sign in visible(text)]
        block = [*(row[i : i + _COLUMNS] for i in range(0, len(row), _COLUMNS)), []]
        left = len(frame.rows) - number
        if lines and len(lines) + len(block) > _LINES:
            return [*lines, _note(f"... {left} more row{'s' * (left > 1)}")]
        if len(block) > _LINES:
            more = f" and {left - 1} more row{'s' * (left > 2)}" if left > 1 else ""
            return [*block[:_LINES], _note(f"... the rest of this row{more}")]
        lines += block
    return lines


def _note(text: str) -> list[_Glyph]:
    return [(c, _SOFT) for c in text]


class _Pen:
    """Draws characters on a grid."""

    def __init__(self) -> None:
        from PIL import ImageFont

        # matplotlib is in the same extra and brings a monospaced font with far more glyphs than pillow's own.
        spec = find_spec("matplotlib")
        mono = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSansMono.ttf" if spec and spec.origin else None
        if mono and mono.exists():
            self._font: Any = ImageFont.truetype(mono, _SIZE)
            self._wide, self._signs = round(self._font.getlength("M")), {}
        else:
            self._font = ImageFont.load_default(_SIZE)
            self._wide, self._signs = round(_SIZE * 0.7), {ord("⏎"): "¶", ord("⇥"): "»"}  # it has no arrows
        self._high = round(_SIZE * 1.4)

    def picture(self, frame: Frame, lines: list[list[_Glyph]], height: int) -> Image.Image:
        """One frame in colour, with room for `height` lines."""
        from PIL import Image, ImageDraw

        size = (_COLUMNS * self._wide + 2 * _MARGIN, (height + 3) * self._high + 2 * _MARGIN)
        image = Image.new("RGB", size, palette.DARK)
        draw = ImageDraw.Draw(image)
        self._line(draw, 0, _note(frame.status))
        self._bar(draw, frame.index / max(1, frame.total))
        for number, line in enumerate(lines, 2):
            self._line(draw, number, line)
        legend = [(None, _HOLE), *_note(" undecided  unsure "), *((None, colour) for colour in palette.ON_DARK)]
        self._line(draw, height + 2, [*legend, *_note(" sure  "), *((c, _INK) for c in "given")])
        return image

    def _bar(self, draw: Any, done: float) -> None:
        left, right, y = _MARGIN, _MARGIN + _COLUMNS * self._wide, _MARGIN + round(1.4 * self._high)
        draw.rectangle((left, y, right, y + 3), fill=_HOLE)
        draw.rectangle((left, y, left + round((right - left) * done), y + 3), fill=palette.ON_DARK[-1])

    def _line(self, draw: Any, number: int, line: list[_Glyph]) -> None:
        y = _MARGIN + number * self._high
        for place, (sign, colour) in enumerate(line):
            x = _MARGIN + place * self._wide
            if sign is None:
                draw.rectangle((x, y + 3, x + self._wide - 2, y + self._high - 5), fill=colour)
            elif sign != " ":
                middle = (x + self._wide / 2, y + self._high / 2)
                draw.text(middle, sign.translate(self._signs), fill=colour, font=self._font, anchor="mm")


def _shades() -> list[int]:
    """Every colour in use, and the steps from the background that smooth the edges of letters: 105 of 256 entries."""
    ground = _channels(palette.DARK)
    shades: list[int] = []
    for colour in map(_channels, (*palette.ON_DARK, _INK, _SOFT, _HOLE)):
        for i in range(8):
            shades += [round(g + (c - g) * (i + 1) / 8) for g, c in zip(ground, colour, strict=True)]
    return [*ground, *shades]


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
