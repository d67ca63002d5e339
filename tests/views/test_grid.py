"""Sudokus as grids."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from rich.console import Console

from textdiffusion.data.builtin.sudoku import Sudoku
from textdiffusion.data.builtin.tasks import parse_task
from textdiffusion.data.tokenizers.base import Characters
from textdiffusion.samplers.base import Step
from textdiffusion.views.frames import Framer
from textdiffusion.views.grid import Grid, grid_of
from textdiffusion.views.terminal import watch

(QUESTION, ANSWER), *_ = Sudoku().sample("easy", 1, np.random.default_rng(0))
ROW = Sudoku().row(QUESTION, ANSWER)
IS_GIVEN = Sudoku().is_given(ROW)
TOKENIZER = Characters("123456789abcdefghi")


@pytest.fixture
def grid() -> Grid:
    found = grid_of(parse_task("sudoku"))
    assert found
    return found


def screen(encoding: str = "utf-8", width: int = 80, terminal: bool = True) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        file=file, width=width, height=24, force_terminal=terminal, color_system="truecolor" if terminal else None
    )


def steps(rows: int = 1) -> Iterator[Step]:
    """The blanks are filled in three steps."""
    ids = torch.tensor([TOKENIZER.encode(ROW).tolist()] * rows)
    blanks = [i for i, known in enumerate(IS_GIVEN) if not known]
    for index in range(4):
        shown = ids.clone()
        shown[:, blanks[round(len(blanks) * index / 3) :]] = TOKENIZER.vocab_size
        yield Step(index, 3, 1 - index / 3, shown, torch.ones(shown.shape), shown, float(index))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_finished_row_is_a_grid_of_digits(grid: Grid, encoding: str):
    console = screen(encoding)
    text = grid.final(ROW, IS_GIVEN, console)
    lines = text.plain.split("\n")
    text.plain.encode(encoding)
    assert len(lines) == 11
    assert {len(line) for line in lines} == {21}
    assert "".join(filter(str.isdigit, text.plain)) == ANSWER
    bold = "".join(text.plain[span.start : span.end] for span in text.spans if getattr(span.style, "bold", False))
    assert bold == QUESTION.replace(".", "")


def test_other_tasks_are_lines():
    assert grid_of(parse_task("copy")) is None
    assert grid_of(None) is None


@pytest.mark.parametrize(("width", "rows", "shown"), [(80, 1, 1), (80, 4, 3), (22, 2, 1)])
def test_as_many_grids_as_fit(grid: Grid, width: int, rows: int, shown: int):
    console, given = screen(width=width), torch.tensor([IS_GIVEN] * rows)
    *_, last = steps(rows)
    lines = grid.picture(Framer(TOKENIZER, given).frame(last), console, rows).plain.split("\n")
    assert all(len(line) <= width for line in lines)
    assert sum(map(str.isdigit, lines[2])) == 9 * shown
    assert lines[-1].startswith("...") == (rows > shown)


def test_watching_draws_grids_and_prints_lines_elsewhere(grid: Grid, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    given = torch.tensor([IS_GIVEN])
    for terminal in (True, False):
        console = screen(terminal=terminal)
        last = watch(steps(), TOKENIZER, given, console, grid=grid)
        assert last.index == 3
        console.file.flush()
        printed = console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
        assert ("\x1b" in printed) is terminal
        assert ("┼" in printed) is terminal
        assert terminal or (ANSWER in printed and QUESTION.replace(".", "░") in printed)


def test_pages_break_lines(grid: Grid):
    frame = grid.broken(Framer(TOKENIZER, torch.tensor([IS_GIVEN])).frame([*steps()][-1]))
    assert "".join(cell.text for cell in frame.rows[0]) == "".join(ANSWER[i : i + 9] + "\n" for i in range(0, 81, 9))
