"""Sudoku: puzzles of each level have one solution and take what they should; the checker is exact."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.data.builtin.sudoku import Sudoku, count_solutions, fill_singles, parse_grids

TASK = Sudoku()
LEVELS = ["easy", "medium", "hard"]
UNITS = [
    *[[9 * r + c for c in range(9)] for r in range(9)],
    *[[9 * r + c for r in range(9)] for c in range(9)],
    *[[9 * (3 * b + r) + 3 * d + c for r in range(3) for c in range(3)] for b in range(3) for d in range(3)],
]


@cache
def puzzles(level: str) -> list[tuple[str, str]]:
    return TASK.sample(level, 60, np.random.default_rng(1))


def plain_count(cells: list[str]) -> int:
    """How many solutions, up to 2, by trying digits cell by cell: slow, and plain enough to be right."""
    best: tuple[int, list[str]] | None = None
    for cell in range(81):
        if cells[cell] == ".":
            seen = {cells[other] for unit in UNITS if cell in unit for other in unit}
            left = [str(digit) for digit in range(1, 10) if str(digit) not in seen]
            if best is None or len(left) < len(best[1]):
                best = cell, left
    if best is None:
        return int(all(len({cells[cell] for cell in unit}) == 9 for unit in UNITS))
    found = 0
    for digit in best[1]:
        found += plain_count([*cells[: best[0]], digit, *cells[best[0] + 1 :]])
        if found > 1:
            return 2
    return found


@pytest.mark.parametrize(("level", "fewest", "most"), [("easy", 46, 50), ("medium", 30, 34), ("hard", 24, 28)])
def test_levels_are_what_they_say(level: str, fewest: int, most: int):
    questions, answers = map(list, zip(*puzzles(level), strict=True))
    assert all(TASK.check(question, answer) for question, answer in puzzles(level))
    givens = [81 - question.count(".") for question in questions]
    assert fewest <= min(givens) <= max(givens) <= most
    asked, full = parse_grids(questions), parse_grids(answers)
    assert (count_solutions(asked) == 1).all()
    by_naked = (fill_singles(asked, hidden=False) == full).all(1)
    by_singles = (fill_singles(asked, hidden=True) == full).all(1)
    assert by_naked.all() if level == "easy" else not by_naked.any()
    assert not by_singles.any() if level == "hard" else by_singles.all()
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("level", LEVELS)
def test_a_plain_search_agrees_that_there_is_one_solution(level: str):
    for question, _ in puzzles(level)[:2]:
        assert plain_count(list(question)) == 1


def test_the_search_counts_as_a_plain_one_does():
    draw = np.random.default_rng(0)
    texts = []
    for question, answer in puzzles("medium")[:5]:
        fewer = list(question)
        for cell in draw.permutation(81)[:30]:
            fewer[cell] = "."
        texts.append("".join(fewer))
        wrong = list(question)
        cell = question.index(".")
        wrong[cell] = draw.choice([digit for digit in "123456789" if digit != answer[cell]])
        texts.append("".join(wrong))
    counts = count_solutions(parse_grids(texts))
    assert counts.tolist() == [plain_count(list(text)) for text in texts]
    assert {0, 2} <= set(counts.tolist())


@given(number=st.integers(0, 59), cell=st.integers(0, 80), digit=st.sampled_from("0123456789.x"))
def test_one_changed_cell_is_wrong(number: int, cell: int, digit: str):
    question, answer = puzzles("easy")[number]
    changed = answer[:cell] + digit + answer[cell + 1 :]
    assert TASK.check(question, changed) is (changed == answer)


@given(number=st.integers(0, 59), digits=st.permutations("123456789"))
def test_a_valid_grid_that_does_not_keep_the_givens_is_wrong(number: int, digits: list[str]):
    question, answer = puzzles("easy")[number]
    other = answer.translate(str.maketrans("123456789", "".join(digits)))
    assert TASK.check("." * 81, other)
    assert TASK.check(question, other) is (other == answer)
    assert not TASK.check(question, answer[:-1])
    assert not TASK.check(question, "123456789" * 9)


def test_a_seed_gives_the_same_puzzles_and_another_gives_others():
    assert TASK.sample("easy", 20, np.random.default_rng(7)) == TASK.sample("easy", 20, np.random.default_rng(7))
    one, other = (TASK.sample("easy", 20, np.random.default_rng(seed)) for seed in (7, 8))
    assert not {answer for _, answer in one} & {answer for _, answer in other}


@given(number=st.integers(0, 59))
def test_a_row_has_the_givens_as_digits_and_the_answers_as_letters(number: int):
    question, answer = puzzles("medium")[number]
    row = TASK.row(question, answer)
    assert len(row) == TASK.width("medium") == 81
    assert TASK.read_row(row) == (question, answer)
    assert TASK.is_given(row) == [cell != "." for cell in question]
    assert all("abcdefghi".index(cell) + 1 == int(digit) for cell, digit in zip(row, answer, strict=True) if cell > "9")
