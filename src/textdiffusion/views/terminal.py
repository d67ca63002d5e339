"""Denoising in a terminal as one live picture, or as a few lines of text where the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from ..core.terminal import TextConsole, visible
from ..core.types import Mask
from ..data.tokenizers.base import Tokenizer
from ..samplers.base import Step
from .frames import Cell, Frame, Framer, GivenTexts, State, evenly
from .grid import Grid
from .palette import ON_ANY, level
from .signs import DECIDED, DIM, GIVEN, legend, progress, undecided

_MIN_PAUSE = 1 / 12  # seconds between two pictures
_MAX_DRAWING = 0.1  # fraction of the time spent on drawing
_CHANGED = [Style(color=colour, bold=True) for colour in ON_ANY]


def watch(
    steps: Iterable[Step],
    tokenizer: Tokenizer,
    given: Mask | None = None,
    console: Console | None = None,
    *,
    grid: Grid | None = None,
    texts: GivenTexts = (),
) -> Step:
    """Show `steps` as they are made, and return the last one.

    A terminal shows one picture that changes, with as many rows as fit; otherwise `history` prints lines. With `grid`,
    rows are drawn as grids. Raises ValueError if there is no step.
    """
    console = TextConsole() if console is None else console
    if not console.is_terminal or console.is_dumb_terminal:
        return history(steps, tokenizer, given, console, grid=grid, texts=texts)
    framer = Framer(tokenizer, given, texts)
    paint = picture if grid is None else grid.picture
    last, drawn_at, pause = None, float("-inf"), _MIN_PAUSE
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def draw(step: Step) -> None:
            frame = framer.frame(step, console.height)
            live.update(paint(frame, console, len(step.tokens)), refresh=True)

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
    *,
    grid: Grid | None = None,
    texts: GivenTexts = (),
) -> Step:
    """Print about `count` evenly spaced steps, one line per row, each step once, and return the last one.

    Raises ValueError if there is no step.
    """
    console = TextConsole() if console is None else console
    framer = Framer(tokenizer, given, texts)

    def show(step: Step) -> None:
        frame = framer.frame(step)
        _print(frame if grid is None else grid.symbols(frame), console)

    last, printed = None, None
    for last in steps:
        if last.index in evenly(last.total, count):
            show(last)
            printed = last
    if last is not None and printed is not last:  # the sampler stopped early
        show(last)
    return _checked(last)


def picture(frame: Frame, console: Console, rows: int) -> Text:
    """`frame`, of a batch of `rows` rows, within the width and height of the console."""
    width, height = console.width, max(1, console.height - 3)  # without progress, legend and the cursor's line
    label = len(str(rows)) + 1 if rows > 1 else 0
    lines, is_last = [_line(cells, console) for cells in frame.rows], frame.index == frame.total
    blocks = [_fold(line, max(1, width - label), breaks=rows == 1, words=is_last) for line in lines]
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
            shown.append(Text.assemble((head, DIM), line))
        if len(block) > spare:
            break
        complete += 1
    if complete < rows and len(shown) < height:
        more = rows - max(1, complete)
        parts = ["the rest of this row"] * (not complete) + [f"{more} more row{'s' * (more > 1)}"] * (more > 0)
        shown.append(Text(f"... {' and '.join(parts)}", DIM))
    body = [progress(frame, console), legend(console), *shown]
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
        console.print(Text.assemble((label + row, DIM), _line(cells, console)), soft_wrap=True, highlight=False)


def _style(cell: Cell) -> Style:
    if cell.state is State.UNDECIDED or cell.text.isspace():
        return DIM
    if cell.state is State.GIVEN:
        return GIVEN
    return (_CHANGED if cell.state is State.CHANGED else DECIDED)[level(cell.confidence)]


def _line(cells: Iterable[Cell], console: Console) -> Text:
    """A row as one line without breaks."""
    block, encoding = undecided(console), console.encoding
    line = Text()
    run, style = "", Style.null()
    for cell in cells:
        this = _style(cell)
        if this is not style:
            line.append(run, style)
            run, style = "", this
        run += block if cell.state is State.UNDECIDED else visible(cell.text)
    line.append(run, style)
    if console.options.ascii_only:  # here already, as the lines are folded by their width
        line.plain = line.plain.encode(encoding, "replace").decode(encoding)  # same length: the styles stay in position
    return line


def _fold(line: Text, width: int, breaks: bool, words: bool = False) -> list[Text]:
    """Cut at `width` columns, and after line breaks if `breaks`.

    Wrapping at words, as with `words`, would make the text jump while it emerges; the result is read, and has them.
    """
    cuts, column, word = [], 0, (0, 0)  # the index and column after the last space
    for i, character in enumerate(line.plain):
        size = 1 if character.isascii() else cell_len(character)
        if column + size > width:
            start, skipped = word if words and word[1] > width // 2 and not character.isspace() else (i, column)
            cuts.append(start)
            column -= skipped
            word = (0, 0)
        column += size
        if character == " ":
            word = i + 1, column
        if breaks and character == "⏎":
            column = width  # the next character, if any, begins a line
    return list(line.divide(cuts)) if cuts else [line]
