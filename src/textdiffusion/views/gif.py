"""The denoising as an animated GIF."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.files import atomic
from ..core.terminal import visible
from . import palette
from .frames import Frame, State, evenly

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS, _LINES, _MAX_FRAMES = 64, 36, 60
_FONT_SIZE, _MARGIN = 16, 16  # pixels
_PLAY, _HOLD = 6000, 3000  # milliseconds of all frames, and in addition of the last
_INK, _SOFT, _HOLE = "#e8eaee", "#8b929e", "#333945"


def write_gif(frames: Iterable[Frame], path: str | Path) -> None:
    """Write at most 60 evenly spaced `frames` as an animation to `path`; the last one stays for three seconds.

    Raises ValueError if there are no frames, UserError without pillow or if the file cannot be written.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UserError("A GIF needs pillow: pip install 'textdiffusion[plot]'.") from None
    all_frames = list(frames)
    if not all_frames:
        raise ValueError("there are no frames to write")
    chosen = [all_frames[i] for i in evenly(len(all_frames) - 1, _MAX_FRAMES)]
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


# One position of the grid: a character (None: a block) and its colour.
_Glyph = tuple[str | None, str]


def _layout(frame: Frame) -> list[list[_Glyph]]:
    """Lines of at most `_COLUMNS` positions; a last line counts the rows that do not fit."""
    lines: list[list[_Glyph]] = []
    for number, cells in enumerate(frame.rows):
        rows: list[list[_Glyph]] = [[]]
        for text, confidence, state in cells:
            row = rows[-1]
            if state is State.GIVEN and text == "\n":  # a break that is always there: nothing jumps
                rows.append([])
                continue
            if state is State.UNDECIDED:
                row.append((None, _HOLE))
                continue
            colour = _INK if state is State.GIVEN else palette.ON_DARK[palette.level(confidence)]
            row += [(symbol, _SOFT if symbol == "⏎" else colour) for symbol in visible(text)]
        block = [row[i : i + _COLUMNS] for row in rows for i in range(0, len(row), _COLUMNS)] + [[]]
        remaining = len(frame.rows) - number
        if lines and len(lines) + len(block) > _LINES:
            return [*lines, _note(f"... {remaining} more row{'s' * (remaining > 1)}")]
        if len(block) > _LINES:
            more = f" and {remaining - 1} more row{'s' * (remaining > 2)}" if remaining > 1 else ""
            return [*block[:_LINES], _note(f"... the rest of this row{more}")]
        lines += block
    return lines


def _note(text: str) -> list[_Glyph]:
    return [(c, _SOFT) for c in text]


class _Pen:
    """Draws characters on a grid."""

    def __init__(self) -> None:
        from PIL import ImageFont

        # matplotlib, in the same extra, has a monospaced font with far more glyphs than pillow's.
        spec = find_spec("matplotlib")
        mono = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSansMono.ttf" if spec and spec.origin else None
        if mono and mono.exists():
            self._font: Any = ImageFont.truetype(mono, _FONT_SIZE)
            self._width, self._symbols = round(self._font.getlength("M")), {}
        else:
            self._font = ImageFont.load_default(_FONT_SIZE)
            self._width, self._symbols = round(_FONT_SIZE * 0.7), {ord("⏎"): "¶", ord("⇥"): "»"}  # it has no arrows
        self._line_height = round(_FONT_SIZE * 1.4)

    def picture(self, frame: Frame, lines: list[list[_Glyph]], height: int) -> Image.Image:
        """One frame, on a picture of `height` lines of text."""
        from PIL import Image, ImageDraw

        size = (_COLUMNS * self._width + 2 * _MARGIN, (height + 3) * self._line_height + 2 * _MARGIN)
        image = Image.new("RGB", size, palette.DARK)
        draw = ImageDraw.Draw(image)
        self._line(draw, 0, _note(frame.status))
        self._bar(draw, frame.index / max(1, frame.total))
        for number, line in enumerate(lines, 2):
            self._line(draw, number, line)
        legend = [(None, _HOLE), *_note(" undecided  unsure "), *((None, colour) for colour in palette.ON_DARK)]
        self._line(draw, height + 2, [*legend, *_note(" sure  "), *((c, _INK) for c in "given")])
        return image

    def _bar(self, draw: Any, fraction: float) -> None:
        left, right, y = _MARGIN, _MARGIN + _COLUMNS * self._width, _MARGIN + round(1.4 * self._line_height)
        draw.rectangle((left, y, right, y + 3), fill=_HOLE)
        draw.rectangle((left, y, left + round((right - left) * fraction), y + 3), fill=palette.ON_DARK[-1])

    def _line(self, draw: Any, number: int, line: list[_Glyph]) -> None:
        y = _MARGIN + number * self._line_height
        for column, (symbol, colour) in enumerate(line):
            x = _MARGIN + column * self._width
            if symbol is None:
                draw.rectangle((x, y + 3, x + self._width - 2, y + self._line_height - 5), fill=colour)
            elif symbol != " ":
                middle = (x + self._width / 2, y + self._line_height / 2)
                draw.text(middle, symbol.translate(self._symbols), fill=colour, font=self._font, anchor="mm")


def _shades() -> list[int]:
    """Every colour in use, and its steps from the background, which smooth the edges of letters: 105 of 256 entries."""
    background = _channels(palette.DARK)
    shades: list[int] = []
    for colour in map(_channels, (*palette.ON_DARK, _INK, _SOFT, _HOLE)):
        for i in range(8):
            shades += [round(b + (c - b) * (i + 1) / 8) for b, c in zip(background, colour, strict=True)]
    return [*background, *shades]


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
