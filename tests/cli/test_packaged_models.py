"""The commands on the models of the package, with stand-ins that have random weights."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.cli import tour
from textdiffusion.core.errors import UserError

QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
HEADINGS = (
    "emerges",
    "gap is filled",
    "word steers",
    "Attributes",
    "pattern holds",
    "sudoku",
    "page",
    "How good",
    "own",
)


def test_models_are_listed(textdiffusion, packaged: Path):
    lines = textdiffusion("models").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["MODEL", "restaurants", "shakespeare", "sudoku"]
    assert {line.count("\t") for line in lines} == {6}
    entries = json.loads(textdiffusion("models", "--json").out)
    for entry in entries:
        assert entry["bytes"] == (packaged / entry["name"] / "model.safetensors").stat().st_size
    assert "# sudoku" in textdiffusion("models", "sudoku").out
    assert "it can be restaurants, shakespeare, sudoku." in textdiffusion("models", "hamlet").err


def test_models_are_a_table_in_a_terminal(textdiffusion, packaged: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    out = textdiffusion("models").out
    assert "licence" in out
    lines = re.sub(r"\x1b\[\d*m", "", out).split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= 60


def test_without_models_there_is_a_sentence(textdiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("textdiffusion.storage.packaged.root", lambda: tmp_path)
    done = textdiffusion("models")
    assert (done.code, done.out) == (0, "")
    assert "has no models" in done.err
    done = textdiffusion("demo")
    assert done.code == 0
    assert done.out.count("Skipped: this installation does not have the model") == 6
    assert "textdiffusion train mdlm --data my.txt" in done.out


def test_commands_take_a_name(textdiffusion, packaged: Path):
    for words in (
        ("sample", "shakespeare", "--num", 1),
        ("infill", "shakespeare", "The [MASK:3] pear", "--num", 1),
        ("sample", "restaurants", "--label", "Italian", "--source", "", "--num", 1),
        ("evaluate", "sudoku", "--data", "sudoku:easy:20:3", "--windows", 2, "--num", 0, "--draws", 2),
        ("samplers", "sudoku"),
        ("noise", "The pear", "--run", "shakespeare"),
    ):
        done = textdiffusion(*words)
        assert done.code == 0, done.err
        assert done.out
    assert "ok  run" in textdiffusion("doctor", "shakespeare").out
    assert not [*packaged.rglob("measured")]


def test_a_bare_question_is_answered(textdiffusion, packaged: Path):
    model = TextDiffusion.from_pretrained("sudoku")
    (answer,) = model.answer(QUESTION, steps=3)
    assert not {*answer} & {*"abcdefghi"}
    assert all(given in (".", cell) for given, cell in zip(QUESTION, answer, strict=True))
    (row,) = model.infill(QUESTION, steps=3)
    assert model.task
    assert model.task.task.read_row(row)[1] == answer
    done = textdiffusion("infill", "sudoku", QUESTION, "--num", 2, "--steps", 3)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == answer
    assert done.err.startswith("0 of 2 answers are correct")
    data = json.loads(textdiffusion("infill", "sudoku", QUESTION, "--num", 1, "--steps", 3, "--json").out)
    assert (data["texts"], data["answers"], data["correct"]) == ([row], [answer], [False])
    watched = textdiffusion("infill", "sudoku", QUESTION, "--num", 1, "--steps", 3, "--watch")
    assert f"] {answer}\n" in watched.out
    assert "has 5 cells" in textdiffusion("infill", "sudoku", "53..7").err


def test_runs_on_other_text_have_no_answers(packaged: Path):
    with pytest.raises(UserError, match="which is not a task"):
        TextDiffusion.from_pretrained("shakespeare").answer(QUESTION)


def test_a_grid_in_a_terminal(textdiffusion, packaged: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out = textdiffusion("infill", "sudoku", QUESTION, "--num", 1, "--steps", 3).out
    assert out.count("┼") == 4
    assert "\x1b[1m5" in out  # a given is bold


def test_the_demo_of_the_models(textdiffusion, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(tour, "STEPS", 4)
    monkeypatch.setattr(tour, "WORD", "fig")
    page = tmp_path / "demo.html"
    done = textdiffusion("demo", "--html", page, "--template", "The [MASK:4] is fresh.")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "Skipped" not in done.out
    for number, part in enumerate(HEADINGS, 1):
        assert any(line.startswith(f"{number}. ") and part in line for line in done.out.splitlines()), part
    assert "textdiffusion infill shakespeare 'The [MASK:4] is fresh.'" in done.out
    assert "Not correct this time" in done.out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_demo_ends_cleanly(textdiffusion, packaged: Path, monkeypatch: pytest.MonkeyPatch):
    def stopped(self: tour.Tour) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tour.Tour, "infilling", stopped)
    monkeypatch.setattr(tour, "STEPS", 2)
    done = textdiffusion("demo")
    assert (done.code, done.err) == (130, "textdiffusion: Stopped.\n")


def test_animations_are_slow_enough_to_see(packaged: Path, monkeypatch: pytest.MonkeyPatch):
    from rich.console import Console

    monkeypatch.setenv("TERM", "xterm")
    naps: list[float] = []
    monkeypatch.setattr("textdiffusion.cli.tour.time.sleep", naps.append)
    run: Callable = TextDiffusion.from_pretrained("shakespeare").stream
    for terminal in (True, False):
        shown = tour.Tour(Console(force_terminal=terminal))
        assert len([*shown._paced(run(length=8, steps=4))]) == 5
    assert len(naps) == 4
    assert max(naps) < tour.SECONDS / 4
