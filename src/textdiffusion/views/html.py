"""One self-contained page that plays the denoising, without network or other files."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path

from ..core.files import atomic
from ..core.terminal import LAYOUT, visible
from . import palette
from .frames import Cell, Frame, State

_KINDS = {State.DECIDED: 0, State.CHANGED: 0, State.UNDECIDED: 1, State.GIVEN: 2}
_REMOVED = -1  # the code of a position that a row no longer has


def write_html(frames: Iterable[Frame], path: str | Path, title: str, facts: Mapping[str, object]) -> None:
    """Write the player of `frames` to `path`, with a title and the `facts` (name: value) below it.

    The frames are read one at a time, so there may be many. Raises ValueError if there are none, UserError if the file
    cannot be written.
    """
    _write(page(frames, title, facts), path)


def page(frames: Iterable[Frame], title: str, facts: Mapping[str, object]) -> str:
    """The player of `frames` as HTML. Raises ValueError if there are none."""
    recording = Encoder()
    for frame in frames:
        recording.add(frame)
    about = "".join(f"<div><dt>{escape(str(k))}:</dt> <dd>{escape(str(v))}</dd></div>" for k, v in facts.items())
    result = "".join(f'<p style="white-space:pre-wrap">{escape(row)}</p>' for row in recording.result())
    parts = {
        "TITLE": escape(title),
        "ABOUT": about,
        "RESULT": result,
        "COLOURS": colours(),
        "SCALE": "".join(f'<i class="s" style="--here:var(--c{i})"></i>' for i in range(palette.LEVELS)),
        "DATA": recording.data(),
    }
    return fill_page("player.html", parts)


def write_page(template: str, path: str | Path, parts: Mapping[str, str]) -> None:
    """Fill a template of this package and write it to `path`. Raises UserError if the file cannot be written."""
    _write(fill_page(template, parts), path)


def fill_page(template: str, parts: Mapping[str, str]) -> str:
    """A template of this package with its parts."""
    text = files("textdiffusion.views").joinpath(template).read_text(encoding="utf-8")
    # In one pass: a marker inside a text stays text.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], text)


def _write(text: str, path: str | Path) -> None:
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


class Encoder:
    """Frames as the differences between them.

    A frame is [index, t, calls, changes]. `changes` has one list per changed row: the row, then pairs of the number of
    positions to skip and the code of the next position. A code is (text * levels + level) * 3 + kind, where `text` is
    an index into `texts` and kind is 0 decided, 1 undecided, 2 given. The player marks as new what a frame changes.
    """

    def __init__(self) -> None:
        self._texts = {"": 0}
        self._frames: list[list] = []
        self._total = 0
        self._rows: list[list[int]] = []
        self._cells: tuple[tuple[Cell, ...], ...] = ()

    def add(self, frame: Frame) -> None:
        changes = []
        self._rows += [[] for _ in range(len(frame.rows) - len(self._rows))]
        for number, (cells, before) in enumerate(zip_longest(frame.rows, self._cells, fillvalue=())):
            if cells == before:
                continue
            codes = [self._code(cell) for cell in cells]
            pairs, skipped = [], 0
            for new, old in zip_longest(codes, self._rows[number], fillvalue=_REMOVED):
                if new == old:
                    skipped += 1
                else:
                    pairs += [skipped, new]
                    skipped = 0
            if pairs:
                changes.append([number, *pairs])
                self._rows[number] = codes
        self._frames.append([frame.index, round(frame.t, 4), round(frame.calls, 2), changes])
        self._total, self._cells = frame.total, frame.rows

    def _code(self, cell: Cell) -> int:
        text = self._texts.setdefault(visible(cell.text, keep=LAYOUT), len(self._texts))
        kind = _KINDS[cell.state]
        level = 0 if kind else palette.level(cell.confidence)
        return (text * palette.LEVELS + level) * 3 + kind

    def result(self) -> list[str]:
        """The text of each row in the last frame."""
        return ["".join(visible(cell.text, keep=LAYOUT) for cell in cells) for cells in self._cells]

    def data(self) -> str:
        """JSON, compressed with gzip, in base64: a third of the size. Raises ValueError if there is no frame."""
        if not self._frames:
            raise ValueError("there are no frames to write")
        data = {"levels": palette.LEVELS, "total": self._total, "texts": list(self._texts), "frames": self._frames}
        text = json.dumps(data, separators=(",", ":"))
        packed = gzip.compress(text.encode(), mtime=0)  # without a date, the same frames give the same page
        return base64.b64encode(packed).decode()


def colours() -> str:
    """The light and the dark theme as CSS variables."""
    dark = {"paper": palette.DARK, "ink": "#e8eaee", "soft": "#9aa1ac", "line": "#2c313a", "key": "#20242c"}
    light = {"paper": palette.LIGHT, "ink": "#1a1d23", "soft": "#5c636e", "line": "#dfe2e7", "key": "#f3f4f6"}
    dark |= {"hole": "#333945", "new": "#2b303a"} | {f"c{i}": colour for i, colour in enumerate(palette.ON_DARK)}
    light |= {"hole": "#d8dce3", "new": "#eceef2"} | {f"c{i}": colour for i, colour in enumerate(palette.ON_LIGHT)}

    def rule(theme: dict[str, str]) -> str:
        return ":root{" + ";".join(f"--{name}:{value}" for name, value in theme.items()) + "}"

    return f"{rule(light)}\n@media (prefers-color-scheme: dark) {{ {rule(dark)} }}"
