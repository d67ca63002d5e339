"""Rows of text that are square grids of cells, such as sudokus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.style import Style
from rich.text import Text

from ..data.builtin.tasks import TaskData
from .frames import Cell, Frame, State
from .palette import level
from .signs import DECIDED, DIM, legend, progress, undecided

_GIVEN = Style(bold=True)
_PLAIN = Style.null()
_GAP = 4  # columns between two grids
_BREAK = Cell("\n", 1.0, State.GIVEN)


@dataclass(frozen=True)
class Grid:
    """Draws rows of box^4 cells as grids with rules between their boxes. `display` gives the symbol of a cell."""

    box: int
    display: Callable[[str], str]

    @property
    def side(self) -> int:
        """Cells of a line."""
        return self.box**2

    def symbols(self, frame: Frame) -> Frame:
        """The frame with the symbols of its cells."""
        rows = tuple(tuple(cell._replace(text=self.display(cell.text)) for cell in row) for row in frame.rows)
        return replace(frame, rows=rows)

    def broken(self, frame: Frame) -> Frame:
        """The frame with symbols and a line break after every line, for pages."""
        return replace(
            frame,
            rows=tuple(
                tuple(
                    each for i, cell in enumerate(row, 1) for each in ([cell, _BREAK] if i % self.side == 0 else [cell])
                )
                for row in self.symbols(frame).rows
            ),
        )

    def final(self, row: str, is_given: Sequence[bool], console: Console) -> Text:
        """A finished row as a grid, the given cells in bold."""
        cells = [
            Cell(self.display(character), 1.0, State.GIVEN if known else State.DECIDED)
            for character, known in zip(row, is_given, strict=True)
        ]
        return Text("\n").join(self._lines(cells, console, coloured=False))

    def picture(self, frame: Frame, console: Console, rows: int) -> Text:
        """The grids side by side, as many as fit, under the progress."""
        width = 2 * self.side + 2 * (self.box - 1) - 1
        fitting = max(1, (console.width + _GAP) // (width + _GAP))
        grids = [self._lines(row, console) for row in self.symbols(frame).rows[:fitting]]
        lines = [Text(" " * _GAP).join(parts) for parts in zip(*grids, strict=True)]
        more = [Text(f"... {rows - len(grids)} more", DIM)] if rows > len(grids) else []
        body = [progress(frame, console), legend(console, _GIVEN, new=False), *lines, *more]
        for line in body:
            line.truncate(console.width)
        return Text("\n", no_wrap=True, overflow="crop").join(body)

    def _lines(self, cells: Sequence[Cell], console: Console, *, coloured: bool = True) -> list[Text]:
        ascii_only = console.options.ascii_only
        bar, dash, cross = ("|", "-", "+") if ascii_only else ("│", "─", "┼")
        rule = Text((dash + cross + dash).join([dash * (2 * self.box - 1)] * self.box), DIM)
        lines: list[Text] = []
        for number in range(self.side):
            line = Text()
            for column, cell in enumerate(cells[number * self.side : (number + 1) * self.side]):
                if column:
                    line.append(f" {bar} " if column % self.box == 0 else " ", DIM)
                style = DIM if cell.state is State.UNDECIDED else _GIVEN if cell.state is State.GIVEN else _PLAIN
                if coloured and style is _PLAIN:
                    style = DECIDED[level(cell.confidence)]
                line.append(undecided(console) if cell.state is State.UNDECIDED else (cell.text or " ")[0], style)
            lines += [rule.copy(), line] if number and number % self.box == 0 else [line]
        return lines


def grid_of(task: TaskData | None) -> Grid | None:
    """How to draw the rows of a task (None: as lines)."""
    return Grid(task.task.box, task.task.display) if task and task.task.box else None
