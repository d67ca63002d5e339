"""Models of the package are found by name, and their files are checked."""

import shutil
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion, train
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.data.prepare import default_cache
from textdiffusion.evaluation.cache import ResultCache
from textdiffusion.evaluation.heldout import held_out
from textdiffusion.storage import packaged as shelf
from textdiffusion.storage.hub import find_run
from textdiffusion.storage.weights import load_tensors, tensors_of


def test_a_name_finds_the_model(packaged: Path):
    assert shelf.names() == ["restaurants", "shakespeare", "sudoku"]
    assert find_run("sudoku") == packaged / "sudoku"
    model = TextDiffusion.from_pretrained("shakespeare")
    assert model.folder == packaged / "shakespeare"
    assert model.generate(steps=2) == model.generate(steps=2)


def test_a_run_in_a_folder_of_that_name_comes_first(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sudoku").mkdir()
    assert find_run("sudoku") == packaged / "sudoku"  # the folder holds no run
    for path in ("./sudoku", Path("sudoku"), str(tmp_path / "sudoku")):
        with pytest.raises(UserError, match=r"config\.json is missing"):
            find_run(path)
    shutil.copy(packaged / "sudoku/config.json", tmp_path / "sudoku")
    assert find_run("sudoku") == Path("sudoku")


def test_an_unknown_name_lists_the_models(packaged: Path):
    with pytest.raises(UserError, match=r"a model of the package \(restaurants, shakespeare, sudoku\)"):
        find_run("shakespear")


@pytest.mark.parametrize("name", shelf.CHECKED)
def test_damaged_files_are_refused(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    shutil.copytree(packaged, tmp_path / "models")
    monkeypatch.setattr(shelf, "root", lambda: tmp_path / "models")
    path = tmp_path / "models/sudoku" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"{name} is damaged: its checksum differs"):
        find_run("sudoku")
    path.unlink()
    with pytest.raises(UserError, match=f"Cannot read .*{name}"):
        find_run("sudoku")
    assert find_run("shakespeare")


def test_weights_take_half_the_space_and_load_as_float32(packaged: Path):
    model = TextDiffusion.from_pretrained("shakespeare").model
    saved = load_tensors(packaged / "shakespeare/model.safetensors")
    parameters = dict(model.named_parameters())
    for name, tensor in tensors_of(model).items():
        assert tensor.dtype == (torch.float32 if tensor.is_floating_point() else saved[name].dtype)
        assert torch.equal(tensor, saved[name].to(tensor.dtype))
        assert (saved[name].dtype == torch.bfloat16) == (name in parameters)


def test_nothing_is_written_into_the_package(packaged: Path):
    model = TextDiffusion.from_pretrained("sudoku")
    assert ResultCache.of_run(model, default_cache()).folder == default_cache() / "measured"


def test_the_excerpt_replaces_text_that_is_not_there(packaged: Path, tmp_path: Path):
    model = TextDiffusion.from_pretrained("shakespeare")
    assert held_out(model, tmp_path).name.startswith("the test part")
    absent = apply_overrides(model.config, ["text.data=absent.txt"])
    text = held_out(TextDiffusion(model.model, model.tokenizer, absent, folder=model.folder), tmp_path)
    assert text.name == "the excerpt that comes with the model"
    assert text.characters() == 600
    with pytest.raises(UserError, match=r"trained on absent\.txt, .* Name the text to measure on with --data"):
        held_out(TextDiffusion(model.model, model.tokenizer, absent), tmp_path)


def test_training_can_start_from_a_model(packaged: Path, tmp_path: Path):
    model = TextDiffusion.from_pretrained("shakespeare")
    (tmp_path / "my.txt").write_text("The old pear is sweet.\n" * 60)
    settings = [f"text.data={tmp_path / 'my.txt'}", "training.steps=1", "training.batch_size=4", "training.lr=1e-9"]
    settings += ["training.eval_windows=2", "training.compile=off", "training.num_samples=0"]
    train(apply_overrides(model.config, settings), tmp_path / "run", init="shakespeare", cache=tmp_path / "cache")
    tuned = TextDiffusion.from_pretrained(tmp_path / "run", weights="raw")
    for name, parameter in tuned.model.named_parameters():
        initial = dict(model.model.named_parameters())[name]
        assert (parameter - initial).norm() < 0.1 * initial.norm() + 0.1, name
