"""Sudoku puzzles with exactly one solution, generated and solved in batches, and the task of solving them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int

from ...core.errors import UserError

Grids = Int[np.ndarray, "n 81"]
"""Cells row by row: 0 for a blank, else 1 << (digit - 1)."""

_DIGITS, _LETTERS = "123456789", "abcdefghi"
_TO_LETTERS = str.maketrans(_DIGITS, _LETTERS)
_TO_DIGITS = str.maketrans(_LETTERS, _DIGITS)
_TO_BLANKS = str.maketrans("0_*", "...")

_CELLS = np.arange(81)
_UNIT_OF = np.stack([_CELLS // 9, _CELLS % 9, _CELLS // 27 * 3 + _CELLS % 9 // 3])  # row, column and box of each cell
_UNITS = np.concatenate([[np.flatnonzero(kind == unit) for unit in range(9)] for kind in _UNIT_OF])  # cells of each
_UNIT_NAMES = [f"{kind} {number}" for kind in ("row", "column", "box") for number in range(1, 10)]
_POPCOUNT = np.array([number.bit_count() for number in range(512)], dtype=np.int16)
_ALL_DIGITS = 511
_SEARCH_BATCH = 2048  # grids of a search handled together
_START_GIVENS = 50  # givens of a puzzle before more are removed one by one
_BASE_GRIDS = 32  # complete grids whose images make up a block


@dataclass(frozen=True)
class _Level:
    """Puzzles with `givens` (minimum, maximum) that need naked singles, and if set `hidden` singles or a `search`.

    Each puzzle appears as this many `images`, more for harder ones, which take longer to generate.
    """

    givens: tuple[int, int]
    hidden: bool = False
    search: bool = False
    images: int = 1


class Sudoku:
    """A question is a puzzle row by row, `.` for a blank; its answer is the complete grid, 81 digits.

    A row of text has the givens as digits and the answers in place of the blanks as letters, `a` for 1 to `i` for 9:
    half as long as a question with its answer beside it, so twice as fast to learn.

    `easy`: 46 to 50 givens, solved by naked singles alone (a cell with one possible digit). `medium`: 30 to 34 givens,
    solved only with hidden singles too (a digit with one possible cell in a row, column or box). `hard`: 24 to 28
    givens, one solution, and singles do not find it.
    """

    box: ClassVar[int] = 3
    levels: ClassVar[Mapping[str, Any]] = {
        "easy": _Level((46, 50)),
        "medium": _Level((30, 34), hidden=True, images=8),
        "hard": _Level((24, 28), hidden=True, search=True, images=32),
    }

    def width(self, level: str) -> int:
        return 81

    def sample(self, level: str, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """`count` puzzles with their solutions: random puzzles under random symmetries of the game."""
        settings: _Level = self.levels[level]
        base = np.stack([_random_grid(rng) for _ in range(_BASE_GRIDS)])
        puzzles, grids, needed = [base[:0]], [base[:0]], -(-count // settings.images)
        while sum(map(len, puzzles)) < needed:
            (solved,) = _images(rng, base[rng.integers(len(base), size=2 * needed + 64)])
            candidates = _remove_givens(solved, settings, rng)
            accepted = _has_level(candidates, solved, settings)
            puzzles.append(candidates[accepted])
            grids.append(solved[accepted])
        index = np.resize(np.arange(needed), count)
        answers, questions = _images(rng, np.concatenate(grids)[index], np.concatenate(puzzles)[index])
        return list(zip(_to_texts(questions), _to_texts(answers), strict=True))

    def row(self, question: str, answer: str) -> str:
        """The givens as digits, the answers as letters."""
        answers = answer.translate(_TO_LETTERS)
        return "".join(a if q == "." else q for q, a in zip(question, answers, strict=True))

    def blank_row(self, question: str) -> str:
        """The puzzle in 81 characters: digits, and `.` for a blank. Blanks may be `0`, `_` or `*`, lines may be broken.

        Raises UserError for another number of cells, other characters, and a digit twice in a row, column or box.
        """
        cells = "".join(question.split()).translate(_TO_BLANKS)
        if len(cells) != 81:
            raise UserError(f"The puzzle has {len(cells)} cells; write 81, row by row, with a dot for each blank.")
        if unknown := sorted({*cells} - {*_DIGITS, "."}):
            raise UserError(f"The puzzle has {unknown[0]!r}; a cell is a digit from 1 to 9, or a dot for a blank.")
        for unit, name in zip(_UNITS, _UNIT_NAMES, strict=True):
            digits = [cells[cell] for cell in unit if cells[cell] != "."]
            if repeated := [digit for digit in _DIGITS if digits.count(digit) > 1]:
                raise UserError(f"The puzzle has {repeated[0]} twice in {name}, so it has no solution.")
        return cells

    def read_row(self, row: str) -> tuple[str, str]:
        """The puzzle and the complete grid, both in digits."""
        return "".join(cell if cell in _DIGITS else "." for cell in row), row.translate(_TO_DIGITS)

    def display(self, text: str) -> str:
        """Answers as digits too."""
        return text.translate(_TO_DIGITS)

    def is_given(self, row: str) -> list[bool]:
        """True for digits."""
        return [cell in _DIGITS for cell in row]

    def check(self, question: str, answer: str) -> bool:
        """Whether rows, columns and boxes contain every digit and the givens are unchanged."""
        if len(answer) != 81 or set(answer) != set(_DIGITS):
            return False
        agrees = all(given in (".", cell) for given, cell in zip(question, answer, strict=True))
        return agrees and all(len({answer[cell] for cell in unit}) == 9 for unit in _UNITS)


def parse_grids(texts: list[str]) -> Grids:
    """Questions or answers as grids."""
    digits = np.array([[int(c) if c != "." else 0 for c in text] for text in texts])
    return np.where(digits > 0, 1 << np.maximum(digits - 1, 0), 0).astype(np.int16)


def _to_texts(grids: Grids) -> list[str]:
    digits = np.where(grids > 0, np.log2(np.maximum(grids, 1)).astype(np.uint8) + ord("1"), ord(".")).astype(np.uint8)
    return [row.tobytes().decode() for row in digits]


def fill_singles(puzzles: Grids, hidden: bool) -> Grids:
    """The puzzles with naked singles, and optionally hidden singles, filled in until there are no more."""
    filled, active = puzzles.copy(), np.arange(len(puzzles))
    while len(active):
        candidates = _candidates(filled[active])
        new = np.where(_POPCOUNT[candidates] == 1, candidates, 0)
        if hidden:
            units_of_kind = candidates[:, _UNITS.reshape(3, 9, 9)].transpose(1, 0, 2, 3)
            for units, unit_of in zip(units_of_kind, _UNIT_OF, strict=True):
                once, twice = np.zeros_like(units[..., 0]), np.zeros_like(units[..., 0])
                for cell in range(9):
                    twice |= once & units[..., cell]
                    once |= units[..., cell]
                unique = candidates & (once & ~twice)[:, unit_of]
                new = np.where((new == 0) & (_POPCOUNT[unique] == 1), unique, new)
        filled[active] |= new
        active = active[new.any(1)]
    return filled


def count_solutions(puzzles: Grids) -> Int[np.ndarray, " n"]:
    """The number of solutions of each puzzle: 0, 1, or 2 for more. Exact depth-first search on the tightest cell."""
    counts, stack, owners = np.zeros(len(puzzles), dtype=np.int64), puzzles, np.arange(len(puzzles))
    while len(stack):
        undecided = counts[owners[-_SEARCH_BATCH:]] < 2
        grids = fill_singles(stack[-_SEARCH_BATCH:][undecided], hidden=True)
        owner = owners[-_SEARCH_BATCH:][undecided]
        stack, owners = stack[:-_SEARCH_BATCH], owners[:-_SEARCH_BATCH]
        candidates = _candidates(grids)
        choices = np.where(grids > 0, 10, _POPCOUNT[candidates])
        solved = (choices == 10).all(1) & (np.bitwise_or.reduce(grids[:, _UNITS], axis=2) == _ALL_DIGITS).all(1)
        counts = np.minimum(counts + np.bincount(owner[solved], minlength=len(counts)), 2)
        cell = choices.argmin(1)
        cell_candidates = candidates[np.arange(len(candidates)), cell]
        for digit in range(9):
            branch = np.flatnonzero(cell_candidates >> digit & 1)
            branch_grids = grids[branch]
            branch_grids[np.arange(len(branch)), cell[branch]] = 1 << digit
            stack, owners = np.concatenate([stack, branch_grids]), np.concatenate([owners, owner[branch]])
    return counts


def _candidates(cells: Grids) -> Grids:
    """The digits missing from the row, column and box of each blank; 0 for filled cells."""
    union, square = np.bitwise_or.reduce, cells.reshape(-1, 9, 9)
    boxes = union(union(cells.reshape(-1, 3, 3, 3, 3), axis=4), axis=2)
    used = union(square, axis=2)[:, :, None] | union(square, axis=1)[:, None, :]
    used |= boxes.repeat(3, axis=1).repeat(3, axis=2)
    return np.where(square > 0, 0, _ALL_DIGITS & ~used).reshape(-1, 81)


def _random_grid(rng: np.random.Generator) -> Int[np.ndarray, " 81"]:
    """A random complete grid, by backtracking on the blank with the fewest candidates."""
    cells = np.zeros(81, dtype=np.int16)

    def fill() -> bool:
        if cells.all():
            return True
        candidates = _candidates(cells[None])[0]
        cell = int(np.where(cells > 0, 10, _POPCOUNT[candidates]).argmin())
        for digit in rng.permutation(9):
            if candidates[cell] >> digit & 1:
                cells[cell] = 1 << digit
                if fill():
                    return True
                cells[cell] = 0
        return False

    fill()
    return cells


def _images(rng: np.random.Generator, *grids: Grids) -> list[Grids]:
    """The grids under random symmetries (bands, lines in bands, transposition, digits), the same for each argument."""
    count = len(grids[0])
    bands = rng.permuted(np.tile(np.arange(3), (count, 2, 1)), axis=2)
    lines = rng.permuted(np.tile(np.arange(3), (count, 2, 3, 1)), axis=3) + 3 * bands[..., None]
    rows, columns = lines.reshape(count, 2, 9).transpose(1, 0, 2)
    transposed = rng.random(count) < 0.5
    digits = np.zeros((count, 512), dtype=np.int16)
    digits[:, 1 << np.arange(9)] = 1 << rng.permuted(np.tile(np.arange(9), (count, 1)), axis=1)

    def image(grids: Grids) -> Grids:
        square = np.take_along_axis(grids.reshape(-1, 9, 9), rows[:, :, None], axis=1)
        square = np.take_along_axis(square, columns[:, None, :], axis=2)
        square[transposed] = square[transposed].transpose(0, 2, 1)
        return np.take_along_axis(digits, square.reshape(-1, 81), axis=1)

    return [image(each) for each in grids]


def _remove_givens(grids: Grids, level: _Level, rng: np.random.Generator) -> Grids:
    """Puzzles of the grids: givens removed one by one while the level's techniques solve them; some keep too many."""
    order = rng.random(grids.shape).argsort(axis=1)
    target = rng.integers(level.givens[0], level.givens[1] + 1, size=len(grids))
    puzzles = np.where(order.argsort(axis=1) < _START_GIVENS, grids, 0)
    active = np.flatnonzero(_is_solved(puzzles, grids, level))
    for position in range(_START_GIVENS - 1, -1, -1):
        active = active[(puzzles[active] > 0).sum(1) > target[active]]
        if not len(active):
            break
        reduced = puzzles[active]
        reduced[np.arange(len(active)), order[active, position]] = 0
        solved = _is_solved(reduced, grids[active], level)
        puzzles[active[solved]] = reduced[solved]
    return puzzles


def _is_solved(puzzles: Grids, grids: Grids, level: _Level) -> Bool[np.ndarray, " n"]:
    """Whether the level's techniques find the solution."""
    solved = (fill_singles(puzzles, level.hidden) == grids).all(1)
    if level.search:
        solved[~solved] = count_solutions(puzzles[~solved]) == 1
    return solved


def _has_level(puzzles: Grids, grids: Grids, level: _Level) -> Bool[np.ndarray, " n"]:
    """Whether the puzzles have few enough givens and need all of the level's techniques, and no more."""
    accepted = (puzzles > 0).sum(1) <= level.givens[1]
    accepted[accepted] = _is_solved(puzzles[accepted], grids[accepted], level)
    if level.hidden:
        accepted[accepted] = ~(fill_singles(puzzles[accepted], level.search) == grids[accepted]).all(1)
    return accepted
