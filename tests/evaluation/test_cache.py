"""Results on disk are believed only as they were written, and what cannot be kept is returned all the same."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.evaluation.cache import ResultCache
from textdiffusion.evaluation.heldout import held_out, training_corpus

MakeRun = Callable[..., Path]


def test_a_result_is_kept_until_it_is_damaged_or_edited(tmp_path: Path):
    cache = ResultCache(tmp_path / "measured", "run")
    values = iter(range(100))

    def result() -> int:
        return cache.get_or_compute("bits", {"seed": 0}, lambda: {"bits": next(values)})["bits"]

    assert [result(), result()] == [0, 0]
    (path,) = (tmp_path / "measured").iterdir()
    stored = json.loads(path.read_text())
    edited = [{**stored, "value": {"bits": -1}}, {**stored, "value": None}, {"value": {"bits": -1}}]
    edited += [{"facts": stored["facts"], "value": {"bits": -1}}]
    for number, text in enumerate([*map(json.dumps, edited), "null", "", "[" * 100_000, '{"value": 1}'], 1):
        path.write_text(text)
        assert [result(), result()] == [number, number]


def test_a_folder_that_cannot_be_written_keeps_nothing_and_hinders_nothing(tmp_path: Path):
    (tmp_path / "measured").write_text("a file")
    cache = ResultCache(tmp_path / "measured", "run")
    assert [cache.get_or_compute("bits", {}, iter([value]).__next__) for value in (1, 2)] == [1, 2]


def test_a_result_that_is_not_finite_is_said(tmp_path: Path):
    cache = ResultCache(tmp_path, "run")
    for value in (math.nan, math.inf):
        with pytest.raises(UserError, match=r"bits.* has a number that is NaN or infinite"):
            cache.get_or_compute("bits", {}, lambda value=value: {"bits": value})
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def model(tiny_run: MakeRun) -> TextDiffusion:
    return TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")


def test_a_file_is_read_only_where_it_has_the_recorded_text(model: TextDiffusion, tmp_path: Path):
    """A foreign run may name a private file."""
    assert training_corpus(model, tmp_path / "cache").hashes == model.text_sha256
    foreign = TextDiffusion(model.model, model.tokenizer, model.config)
    with pytest.raises(UserError, match=r"does not record its text.*--data"):
        held_out(foreign, tmp_path / "foreign")
    assert not (tmp_path / "foreign").exists()  # nothing was read
    other = TextDiffusion(model.model, model.tokenizer, model.config, text_sha256=dict.fromkeys(model.text_sha256, "0"))
    with pytest.raises(UserError, match=r"is not the one that the run was trained on.*--data"):
        held_out(other, tmp_path / "cache")
    assert held_out(foreign, tmp_path / "cache", model.config.text.data, 4).trained_on


def test_evaluating_a_foreign_run_reads_and_prints_nothing_of_the_file(model: TextDiffusion, tmp_path: Path, capsys):
    from textdiffusion.cli import main

    folder = TextDiffusion(model.model, model.tokenizer, model.config).save_pretrained(tmp_path / "foreign")
    for words in (["evaluate", str(folder)], ["compare", str(folder), "--markdown", str(tmp_path / "table.md")]):
        with pytest.raises(SystemExit) as end:
            main([*words, "--num", "0"])
        assert end.value.code == 2
        assert "--data" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()
    shutil.rmtree(folder)
