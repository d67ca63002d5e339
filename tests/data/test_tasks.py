"""Tasks: right answers pass, wrong ones fail, and a row says what is given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.builtin.tasks import TASKS, Copy, TaskData, parse_task
from textdiffusion.data.config import TextConfig
from textdiffusion.data.documents import open_source
from textdiffusion.data.examples import Examples
from textdiffusion.data.prepare import prepare

SHORT = [(name, level) for name in TASKS for level in TASKS[name].levels if name != "sudoku"]


def of(data: str) -> TaskData:
    task = parse_task(data)
    assert task is not None
    return task


def rows_of(name: str, level: str, seed: int, count: int = 4) -> list[tuple[str, str]]:
    return TASKS[name].sample(level, count, np.random.default_rng(seed))


@pytest.mark.parametrize(("name", "level"), SHORT)
@given(seed=st.integers(0, 10**6), offset=st.integers(0, 10**6), other=st.integers(0, 10**6))
@settings(max_examples=25)
def test_right_answers_pass_and_changed_ones_fail(name: str, level: str, seed: int, offset: int, other: int):
    task = TASKS[name]
    for question, answer in rows_of(name, level, seed):
        row = task.row(question, answer)
        assert len(row) == task.width(level)
        assert task.read_row(row) == (question, answer)
        assert task.check(question, answer)
        given_answer = task.is_given(row)[-len(answer) :]
        shown = "".join(mark if known else "." for mark, known in zip(answer, given_answer, strict=True))
        assert "." in shown
        assert all(a in (".", b) for a, b in zip(shown, answer, strict=True))
        position = offset % len(answer)
        for mark in sorted({*answer, *"0123456789()[]{}abcdefghij.= \n"[other % 30]} - {answer[position]}):
            assert not task.check(question, answer[:position] + mark + answer[position + 1 :])
        assert not task.check(question, answer[:-1])
        assert not task.check(question, answer + answer[0])
        assert not task.check(question, "")


@given(text=st.text("0123456789.()[]{}abcdefghij=+ é", max_size=20))
def test_any_answer_is_judged(text: str):
    for row in ("copy:abc=abc", "sort:cab=abc", "brackets:(.=()", "addition:1+9=10"):
        name, _, asked = row.partition(":")
        question, _, right = asked.partition("=")
        assert of(name).is_correct(f"{question}={text}") is (text == right)
    assert not of("sudoku").is_correct(text)


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ("addition:850+636=1486", True),
        ("addition:000+001=0001", True),
        ("addition:850+636=01486", False),
        ("sort:cabca=aabcc", True),
        ("sort:cabca=aabbc", False),
        ("copy:cabca=cabca", True),
        ("copy:cabca=cabcb", False),
        ("brackets:[..]=[()]", True),
        ("brackets:[..]=[{}]", True),  # blanks may have several fillings
        ("brackets:[..]=[][]", True),
        ("brackets:[..]=({})", False),  # balanced, but not as asked
        ("brackets:....=([)]", False),
        ("brackets:....=))((", False),
        ("brackets:....=((()", False),
        ("brackets:..=([])", False),
    ],
)
def test_what_is_right(row: str, right: bool):
    name, _, text = row.partition(":")
    assert of(name).is_correct(text) is right


def test_brackets_are_drawn_uniformly_but_for_their_kinds():
    sampled = [answer for _, answer in rows_of("brackets", "easy", 0, 14_000)]
    shapes = ["".join("(" if mark in "([{" else ")" for mark in answer) for answer in sampled]
    kinds, counts = np.unique(shapes, return_counts=True)
    assert len(kinds) == 14  # Catalan's number of 4 pairs
    assert ((counts - 1000) ** 2 / 1000).sum() < 35  # chi-squared with 13 degrees of freedom: p = 0.001


@pytest.mark.parametrize("data", ["copy:easy", "brackets:easy", "addition:medium", "sudoku:easy"])
def test_rows_are_a_function_of_the_seed_and_all_different(data: str):
    rows = [*of(f"{data}:1500:3").rows()]
    assert [*of(f"{data}:1000:3").rows()] == rows[:1000]
    assert [*of(f"{data}:1000:4").rows()][:10] != rows[:10]
    assert len({of(data).task.read_row(row)[0] for row in rows}) == 1500
    assert all(map(of(data).is_correct, rows))
    source = of(f"{data}:1500:3").source()
    for _ in range(2):
        pieces = [*source.chunks()]
        assert [piece.document for piece in pieces] == [0, 1]
        assert "".join(piece.text for piece in pieces).splitlines() == rows
    assert source.identity() != of(f"{data}:1500:4").source().identity()


def test_a_task_that_runs_out_of_questions_says_so():
    class Short(Copy):
        levels = {"easy": 2}  # noqa: RUF012

    assert len(set(TaskData("copy", Short(), "easy", 90, 0).rows())) == 90
    with pytest.raises(UserError, match="copy:easy has too few different questions for 101"):
        list(TaskData("copy", Short(), "easy", 101, 0).rows())


@pytest.mark.parametrize("data", ["copy:", "copy:no", "copy:easy:0", "copy:easy:x", "copy:easy:1:2:3", "copy:5"])
def test_data_that_is_not_understood(data: str):
    with pytest.raises(UserError, match=r"copy:LEVEL:SIZE:SEED; LEVEL can be easy, medium, hard"):
        parse_task(data)


def test_names_and_defaults():
    assert parse_task("copies") is None
    assert (of("sort").level, of("sort").size, of("sort").seed) == ("easy", 50_000, 0)
    assert (of("sort:hard:7:9").level, of("sort:hard:7:9").size, of("sort:hard:7:9").seed) == ("hard", 7, 9)
    assert open_source("sort:hard:7:9", TextConfig(), Path()).identity() == of("sort:hard:7:9").source().identity()
    with pytest.raises(UserError, match="no effect on the built-in data"):
        open_source("sort", TextConfig(limit=3), Path())


def test_a_prepared_task_gives_what_the_question_shows(tmp_path):
    task = of("brackets:easy:4000")
    corpus = prepare(TextConfig(data="brackets:easy:4000", **task.text_settings()), tmp_path)
    parts = {"train": corpus.train, "valid": corpus.part("valid"), "test": corpus.part("test")}
    questions: list[str] = []
    for part in parts.values():
        assert isinstance(part, Examples)
        all_rows = part.windows(range(len(part)))
        sampled = part.batch(7, range(4), batch_size=4)
        for batch in (all_rows, sampled):
            assert batch.condition_mask is not None
            for ids, shown in zip(batch.tokens.numpy(), batch.condition_mask.numpy(), strict=True):
                row = corpus.tokenizer.decode(ids)
                assert len(row) == 17
                assert task.is_correct(row)
                assert shown[:9].all()  # question and =
                assert [mark == "." for mark in row[:8]] == [not known for known in shown[9:17]]
                assert shown[17:].all()  # the end
        questions += [corpus.tokenizer.decode(ids).partition("=")[0] for ids in all_rows.tokens.numpy()]
        assert all_rows.num_chars is not None
        assert (all_rows.num_chars == all_rows.target_mask.sum(1)).all()
        # Positions and characters are those of the blanks.
        assert (
            part.shard.tokens[part.positions(range(5))] == all_rows.tokens[:5][all_rows.target_mask[:5]].numpy()
        ).all()
    assert len(set(questions)) == len(questions) == 4000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "stream", "too_long": "truncate"}, "needs layout=lines"),
        ({"tokenizer": "bytes"}, "needs layout=lines and tokenizer=characters"),
        ({"packing": True}, "without packing"),
        ({"data": "grammar:4000"}, "needs a task as data"),
        ({"length": 10}, "too_long=truncate or drop"),
    ],
)
def test_the_mask_of_questions_needs_a_task(change: dict, message: str, tmp_path):
    options: dict[str, Any] = {"data": "copy:easy:3000", **of("copy").text_settings(), **change}
    with pytest.raises(UserError, match=message):
        prepare(TextConfig(**options), tmp_path)


@pytest.mark.parametrize(("name", "level"), [*SHORT, ("sudoku", "easy")])
def test_a_question_is_the_template_of_its_row(name: str, level: str):
    task = of(f"{name}:{level}")
    for question, answer in rows_of(name, level, 3):
        row = task.task.row(question, answer)
        assert task.template(question) == task.row_template(row)
        assert all(part not in task.template(question) for part in ("[MASK]", "[MASK:0]"))
        assert len(task.task.display(row)) == len(row)
        if "=" in row:
            assert task.template(f"{question}=") == task.template(question)


@pytest.mark.parametrize(
    ("data", "question", "says"),
    [
        ("sudoku", "53..7", "has 5 cells; write 81"),
        ("sudoku", "x" + "." * 80, "has 'x'; a cell is a digit"),
        ("sudoku", "5...5" + "." * 76, "has 5 twice in row 1, so it has no solution"),
        ("sudoku", "5" + "." * 8 + "5" + "." * 71, "has 5 twice in column 1"),
        ("sudoku", "5" + "." * 9 + "5" + "." * 70, "has 5 twice in box 1"),
        ("addition:easy", "85+63", "gives a row of 9 characters; those of addition:easy have 12"),
    ],
)
def test_what_cannot_be_a_question_is_refused(data: str, question: str, says: str):
    with pytest.raises(UserError, match=says):
        of(data).template(question)


def test_sudokus_are_read_as_people_write_them():
    (question, _), *_ = rows_of("sudoku", "easy", 3)
    lines = "\n".join(question[i : i + 9] for i in range(0, 81, 9))
    for written in (lines, question.replace(".", "0"), question.replace(".", "_")):
        assert of("sudoku").template(written) == of("sudoku").template(question)
