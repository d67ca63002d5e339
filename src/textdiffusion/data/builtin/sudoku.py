"""Sudoku puzzles with exactly one solution, made and solved many at once; and the task of solving them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int

Grids = Int[np.ndarray, "n 81"]
"""Cells row by row: 0 for a blank, else 1 << (digit - 1)."""

_CELLS = np.arange(81)
_OF = np.stack([_CELLS // 9, _CELLS % 9, _CELLS // 27 * 3 + _CELLS % 9 // 3])  # the row, column and box of a cell
_UNITS = np.concatenate([[np.flatnonzero(kind == unit) for unit in range(9)] for kind in _OF])
_DIGITS = np.array([number.bit_count() for number in range(512)], dtype=np.int16)
_ALL = 511
_AT_ONCE = 2048  # positions of a search
_START = 50  # givens of the puzzles that are dug further
_FOUND = 32  # complete grids that a block's grids are images of


@dataclass(frozen=True)
class _Level:
    """Puzzles of `givens` (the fewest, the most) that need naked singles, `hidden` ones too, or also `search`.

    Each puzzle found is shown in so many `images`, as the harder ones take longer to find.
    """

    givens: tuple[int, int]
    hidden: bool = False
    search: bool = False
    images: int = 1


class Sudoku:
    """A question is a puzzle row by row, `.` for a blank; its answer is the complete grid, 81 digits.

    `easy`: 46 to 50 givens, solved by naked singles alone (a cell with one digit left). `medium`: 30 to 34 givens,
    solved with hidden singles too (a digit with one cell left in its row, column or box), not without. `hard`: 24 to 28
    givens, one solution, and singles do not find it.
    """

    levels: ClassVar[Mapping[str, Any]] = {
        "easy": _Level((46, 50)),
        "medium": _Level((30, 34), hidden=True, images=8),
        "hard": _Level((24, 28), hidden=True, search=True, images=32),
    }

    def rows(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """`count` questions with their answers: images, under the symmetries of the game, of puzzles dug at random."""
        kind: _Level = self.levels[level]
        found = np.stack([_complete(rng) for _ in range(_FOUND)])
        puzzles, grids, needed = [found[:0]], [found[:0]], -(-count // kind.images)
        while sum(map(len, puzzles)) < needed:
            full = _images(found[rng.integers(len(found), size=2 * needed + 64)], rng)[0]
            dug = _dug(full, kind, rng)
            kept = _demanding(dug, full, kind)
            puzzles.append(dug[kept])
            grids.append(full[kept])
        base = np.resize(np.arange(needed), count)
        pairs = np.concatenate(puzzles)[base], np.concatenate(grids)[base]
        questions, answers = _images(pairs[1], rng, pairs[0])[::-1]
        return list(zip(_texts(questions), _texts(answers), strict=True))

    def width(self, level: str) -> int:
        """Question and answer."""
        return 162

    def known(self, question: str) -> str:
        """The givens."""
        return question

    def check(self, question: str, answer: str) -> bool:
        """Whether rows, columns and boxes hold every digit and the givens are kept."""
        if len(answer) != 81 or set(answer) != set("123456789"):
            return False
        agrees = all(asked in (".", cell) for asked, cell in zip(question, answer, strict=True))
        return agrees and all(len({answer[cell] for cell in unit}) == 9 for unit in _UNITS)


def read(texts: list[str]) -> Grids:
    """Questions or answers as grids."""
    digits = np.array([[int(c) if c != "." else 0 for c in text] for text in texts])
    return np.where(digits > 0, 1 << np.maximum(digits - 1, 0), 0).astype(np.int16)


def singles(puzzles: Grids, hidden: bool) -> Grids:
    """What naked singles, and hidden ones, fill in until they find no more."""
    filled, live = puzzles.copy(), np.arange(len(puzzles))
    while len(live):
        left = _candidates(filled[live])
        new = np.where(_DIGITS[left] == 1, left, 0)
        if hidden:
            for units, of in zip(left[:, _UNITS.reshape(3, 9, 9)].transpose(1, 0, 2, 3), _OF, strict=True):
                once, twice = np.zeros_like(units[..., 0]), np.zeros_like(units[..., 0])
                for place in range(9):
                    twice |= once & units[..., place]
                    once |= units[..., place]
                only = left & (once & ~twice)[:, of]
                new = np.where((new == 0) & (_DIGITS[only] == 1), only, new)
        filled[live] |= new
        live = live[new.any(1)]
    return filled


def solutions(puzzles: Grids) -> Int[np.ndarray, " n"]:
    """How many solutions each puzzle has: 0, 1, or 2 for more. An exact search, by the cell with least choice."""
    found, stack, owners = np.zeros(len(puzzles), dtype=np.int64), puzzles, np.arange(len(puzzles))
    while len(stack):
        open_ = found[owners[-_AT_ONCE:]] < 2
        states, owner = singles(stack[-_AT_ONCE:][open_], hidden=True), owners[-_AT_ONCE:][open_]
        stack, owners = stack[:-_AT_ONCE], owners[:-_AT_ONCE]
        left = _candidates(states)
        choice = np.where(states > 0, 10, _DIGITS[left])
        solved = (choice == 10).all(1) & (np.bitwise_or.reduce(states[:, _UNITS], axis=2) == _ALL).all(1)
        found = np.minimum(found + np.bincount(owner[solved], minlength=len(found)), 2)
        cell = choice.argmin(1)
        here = left[np.arange(len(left)), cell]
        for digit in range(9):
            branch = np.flatnonzero(here >> digit & 1)
            states_, owner_ = states[branch], owner[branch]
            states_[np.arange(len(branch)), cell[branch]] = 1 << digit
            stack, owners = np.concatenate([stack, states_]), np.concatenate([owners, owner_])
    return found


def _candidates(cells: Grids) -> Grids:
    """The digits that a blank's row, column and box still lack; 0 where a cell is filled."""
    union, square = np.bitwise_or.reduce, cells.reshape(-1, 9, 9)
    boxes = union(union(cells.reshape(-1, 3, 3, 3, 3), axis=4), axis=2)
    seen = union(square, axis=2)[:, :, None] | union(square, axis=1)[:, None, :]
    seen |= boxes.repeat(3, axis=1).repeat(3, axis=2)
    return np.where(square > 0, 0, _ALL & ~seen).reshape(-1, 81)


def _complete(rng: np.random.Generator) -> Int[np.ndarray, " 81"]:
    """A random complete grid, by search with the blank of least choice first."""
    cells, seen = [0] * 81, [[0] * 9 for _ in range(3)]
    of = _OF.T.tolist()

    def fill() -> bool:
        left = {
            cell: _ALL & ~(seen[0][r] | seen[1][c] | seen[2][b]) for cell, (r, c, b) in enumerate(of) if not cells[cell]
        }
        if not left:
            return True
        cell = min(left, key=lambda cell: left[cell].bit_count())
        for digit in rng.permutation(9):
            bit = 1 << int(digit)
            if left[cell] & bit:
                cells[cell] = bit
                for kind, unit in zip(seen, of[cell], strict=True):
                    kind[unit] ^= bit
                if fill():
                    return True
                cells[cell] = 0
                for kind, unit in zip(seen, of[cell], strict=True):
                    kind[unit] ^= bit
        return False

    fill()
    return np.array(cells, dtype=np.int16)


def _images(full: Grids, rng: np.random.Generator, *others: Grids) -> tuple[Grids, ...]:
    """The grids, and others with them, each under a random symmetry: bands, lines in them, transposition, digits."""
    count = len(full)
    bands = rng.permuted(np.tile(np.arange(3), (count, 2, 1)), axis=2)
    lines = rng.permuted(np.tile(np.arange(3), (count, 2, 3, 1)), axis=3) + 3 * bands[..., None]
    rows, columns = lines.reshape(count, 2, 9).transpose(1, 0, 2)
    flipped = rng.random(count) < 0.5
    bits = np.zeros((count, 512), dtype=np.int16)
    bits[:, 1 << np.arange(9)] = 1 << rng.permuted(np.tile(np.arange(9), (count, 1)), axis=1)

    def image(grids: Grids) -> Grids:
        square = np.take_along_axis(grids.reshape(-1, 9, 9), rows[:, :, None], axis=1)
        square = np.take_along_axis(square, columns[:, None, :], axis=2)
        square[flipped] = square[flipped].transpose(0, 2, 1)
        return np.take_along_axis(bits, square.reshape(-1, 81), axis=1)

    return tuple(image(grids) for grids in (full, *others))


def _dug(full: Grids, level: _Level, rng: np.random.Generator) -> Grids:
    """Random blanks, one after the other where the level's means still find the solution; some have too few."""
    order = rng.random(full.shape).argsort(axis=1)
    wanted = rng.integers(level.givens[0], level.givens[1] + 1, size=len(full))
    puzzles = np.where(order.argsort(axis=1) < _START, full, 0)
    live = np.flatnonzero(_solved(puzzles, full, level))
    for place in range(_START - 1, -1, -1):
        live = live[(puzzles[live] > 0).sum(1) > wanted[live]]
        if not len(live):
            break
        fewer = puzzles[live]
        fewer[np.arange(len(live)), order[live, place]] = 0
        fine = _solved(fewer, full[live], level)
        puzzles[live[fine]] = fewer[fine]
    return puzzles


def _solved(puzzles: Grids, full: Grids, level: _Level) -> Bool[np.ndarray, " n"]:
    """Whether the level's means find the solution."""
    done = (singles(puzzles, level.hidden) == full).all(1)
    if level.search:
        done[~done] = solutions(puzzles[~done]) == 1
    return done


def _demanding(puzzles: Grids, full: Grids, level: _Level) -> Bool[np.ndarray, " n"]:
    """Whether they are of the level: few enough givens, the level's means suffice, and weaker ones do not."""
    few = (puzzles > 0).sum(1) <= level.givens[1]
    few[few] = _solved(puzzles[few], full[few], level)
    if level.hidden:
        few[few] = ~(singles(puzzles[few], level.search) == full[few]).all(1)
    return few


def _texts(grids: Grids) -> list[str]:
    digits = np.where(grids > 0, np.log2(np.maximum(grids, 1)).astype(np.uint8) + ord("1"), ord(".")).astype(np.uint8)
    return [row.tobytes().decode() for row in digits]
