"""Denoising in a terminal as one live picture, or as a few lines of text where the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from ..core.types import Mask
from ..data.tokenizers.base import Tokenizer
from ..samplers.base import Step
from .frames import Cell, Frame, Framer, GivenTexts, State, evenly, visible
from .palette import LEVELS, ON_ANY, level

_MIN_PAUSE = 1 / 12  # seconds between two pictures
_MAX_DRAWING = 0.1  # fraction of the time spent on drawing
_DIM = Style(dim=True)
_GIVEN = Style(underline=True)
_DECIDED = [Style(color=colour) for colour in ON_ANY]
_CHANGED = [Style(color=colour, bold=True) for colour in ON_ANY]


def watch(
    steps: Iterable[Step],
    tokenizer: Tokenizer,
    given: Mask | None = None,
    console: Console | None = None,
    texts: GivenTexts = (),
) -> Step:
    """Show `steps` as they are made, and return the last one.

    A terminal shows one picture that changes, with as many rows as fit; otherwise `history` prints lines. Raises
    ValueError if there is no step.
    """
    console = Console() if console is None else console
    if not console.is_terminal or console.is_dumb_terminal:
        return history(steps, tokenizer, given, console, texts=texts)
    framer = Framer(tokenizer, given, texts)
    last, drawn_at, pause = None, float("-inf"), _MIN_PAUSE
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def draw(step: Step) -> None:
            frame = framer.frame(step, console.height)
            live.update(picture(frame, console, len(step.tokens)), refresh=True)

        for last in steps:
            start = time.monotonic()
            if start - drawn_at >= pause:
                draw(last)
                drawn_at = time.monotonic()
                pause = max(_MIN_PAUSE, (drawn_at - start) / _MAX_DRAWING)
        if last is not None:
            draw(last)
    return _checked(last)


def history(
    steps: Iterable[Step],
    tokenizer: Tokenizer,
    given: Mask | None = None,
    console: Console | None = None,
    count: int = 8,
    texts: GivenTexts = (),
) -> Step:
    """Print about `count` evenly spaced steps, one line per row, each step once, and return the last one.

    Raises ValueError if there is no step.
    """
    console = Console() if console is None else console
    framer = Framer(tokenizer, given, texts)
    last, printed = None, None
    for last in steps:
        if last.index in evenly(last.total, count):
            _print(framer.frame(last), console)
            printed = last
    if last is not None and printed is not last:  # the sampler stopped early
        _print(framer.frame(last), console)
    return _checked(last)


def picture(frame: Frame, console: Console, rows: int) -> Text:
    """`frame`, of a batch of `rows` rows, within the width and height of the console."""
    width, height = console.width, max(1, console.height - 3)  # without progress, legend and the cursor's line
    label = len(str(rows)) + 1 if rows > 1 else 0
    lines = [_line(cells, console) for cells in frame.rows]
    blocks = [_fold(line, max(1, width - label), breaks=rows == 1) for line in lines]
    if rows == 1 and len(blocks[0]) > height:
        blocks = [_fold(lines[0], width, breaks=False)]
    shown: list[Text] = []
    complete = 0  # rows shown to their end
    for number, block in enumerate(blocks, 1):
        spare = height - len(shown) - (number < rows or len(block) > height)  # one line is reserved for "... more"
        if len(block) > spare and shown:
            break
        for i, line in enumerate(block[: max(1, spare)]):
            head = f"{number if i == 0 else '':>{label - 1}} " if label else ""
            shown.append(Text.assemble((head, _DIM), line))
        if len(block) > spare:
            break
        complete += 1
    if complete < rows and len(shown) < height:
        more = rows - max(1, complete)
        parts = ["the rest of this row"] * (not complete) + [f"{more} more row{'s' * (more > 1)}"] * (more > 0)
        shown.append(Text(f"... {' and '.join(parts)}", _DIM))
    body = [_progress(frame, console), _legend(console), *shown]
    for line in body:
        line.truncate(width)
    return Text("\n", no_wrap=True, overflow="crop").join(body)


def _checked(last: Step | None) -> Step:
    if last is None:
        raise ValueError("the sampler made no step")
    return last


def _print(frame: Frame, console: Console) -> None:
    label = f"[{frame.status}] "
    for number, cells in enumerate(frame.rows, 1):
        row = f"{number}: " if len(frame.rows) > 1 else ""
        console.print(Text.assemble((label + row, _DIM), _line(cells, console)), soft_wrap=True, highlight=False)


def _block(console: Console) -> str:
    return "_" if console.options.ascii_only else "░"


def _style(cell: Cell) -> Style:
    if cell.state is State.UNDECIDED or cell.text.isspace():
        return _DIM
    if cell.state is State.GIVEN:
        return _GIVEN
    return (_CHANGED if cell.state is State.CHANGED else _DECIDED)[level(cell.confidence)]


def _line(cells: Iterable[Cell], console: Console) -> Text:
    """A row as one line without breaks."""
    block, encoding = _block(console), console.encoding
    line = Text()
    run, style = "", Style.null()
    for cell in cells:
        this = _style(cell)
        if this is not style:
            line.append(run, style)
            run, style = "", this
        run += block if cell.state is State.UNDECIDED else visible(cell.text)
    line.append(run, style)
    if console.options.ascii_only:
        line.plain = line.plain.encode(encoding, "replace").decode(encoding)  # same length: the styles stay in position
    return line


def _fold(line: Text, width: int, breaks: bool) -> list[Text]:
    """Cut anywhere at `width` columns, and after line breaks if `breaks`.

    Wrapping at words would make the text jump while it emerges.
    """
    cuts, column = [], 0
    for i, character in enumerate(line.plain):
        size = 1 if character.isascii() else cell_len(character)
        if column + size > width:
            cuts.append(i)
            column = 0
        column += size
        if breaks and character == "⏎":
            column = width  # the next character, if any, begins a line
    return list(line.divide(cuts)) if cuts else [line]


def _progress(frame: Frame, console: Console) -> Text:
    full, empty = ("#", "-") if console.options.ascii_only else ("━", "─")
    size = 20 if console.width >= 72 else 8
    done = round(size * frame.index / max(1, frame.total))
    return Text.assemble((full * done, _DECIDED[-1]), (empty * (size - done), _DIM), f" {frame.status}")


def _legend(console: Console) -> Text:
    block = _block(console)
    scale = [("#" if console.options.ascii_only else "■", style) for style in _DECIDED[:: LEVELS // 5]]
    return Text.assemble(
        (block, _DIM), " undecided  unsure ", *scale, " sure  ", ("given", _GIVEN), "  ", ("new", Style(bold=True))
    )
