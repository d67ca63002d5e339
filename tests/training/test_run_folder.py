"""A run's folder is never written over, never recreated, and left clean by what fails."""

import errno
import json
import os
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from textdiffusion.config.config import Config
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.storage import checkpoint
from textdiffusion.training.events import Saved, StopSignal
from textdiffusion.training.run import train
from textdiffusion.training.run_folder import RunFolder

from .runs import loop_of, run
from .tiny import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run, `run`, and its text."""
    folder = tmp_path_factory.mktemp("trained")
    run(config_in(folder), folder / "run", folder)
    return folder


def config_in(folder: Path, **training: Any) -> Config:
    settings: dict[str, Any] = {"steps": 4, "eval_every": 2, "eval_windows": 2, "keep_checkpoints": 9, **training}
    return tiny("mdlm", folder, **settings)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, which may be damaged."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def resume(trained: Path, folder: Path, **training: Any) -> str:
    """Resumes the copy with the text of the original; returns what it printed."""
    said = StringIO()
    config = config_in(trained, **training)
    train(config, folder, cache=trained / "cache", console=Console(file=said, width=10_000), device="cpu")
    return said.getvalue()


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name not in (".pid", ".lock")}


@pytest.mark.parametrize("damage", ["deleted", "damaged"])
def test_training_never_begins_over_weights_that_are_there(damage: str, trained: Path, folder: Path):
    if damage == "deleted":
        shutil.rmtree(folder / "checkpoints")
    else:
        for path in (folder / "checkpoints").glob("step-*/state.json"):
            path.write_text("{}")
    before = content(folder)
    problem = "no checkpoint, so training would begin at step 0" if damage == "deleted" else "of the 2 checkpoints"
    with pytest.raises(UserError, match=rf"{problem}.*--init .*run starts from its weights"):
        resume(trained, folder, steps=6)
    assert content(folder) == before


def test_exported_weights_that_are_lost_damaged_or_replaced_come_back_from_a_checkpoint(trained: Path, folder: Path):
    weights = folder / "model.safetensors"
    path = folder / "checkpoints/step-000000004/state.json"
    state = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    path.write_text(json.dumps(checkpoint.seal({**state, "best": {"step": 2, "bits": 1.0}})))
    best = load_file(folder / "checkpoints/step-000000002/ema.safetensors")
    for damage in (weights.unlink, lambda: weights.write_bytes(b"x"), lambda: save_file({}, weights)):
        damage()
        assert "it has the weights of step 2 again" in resume(trained, folder)
        assert load_file(weights).keys() == best.keys()
        assert all((load_file(weights)[name] == best[name]).all() for name in best)
    assert "again" not in resume(trained, folder)


def test_unreadable_lines_of_metrics_are_said(trained: Path, folder: Path):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join([*lines[:2], '{"step": null}\n', "�{\n", *lines[2:], '{"event"']))
    assert "metrics.jsonl: 2 lines, first 3, could not be read and are left out" in resume(trained, folder, steps=5)
    kept = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert kept[: len(lines) - 1] == lines[:-1]


def test_a_change_of_precision_is_said(trained: Path, folder: Path):
    assert "computed in" not in resume(trained, folder, steps=5)
    said = resume(trained, folder, steps=6, dtype="bfloat16")
    assert "This run computed in float32 until step 5 and now continues in bfloat16" in said


def test_a_checkpoint_of_another_run_is_refused(trained: Path, folder: Path):
    path = folder / "checkpoints/step-000000004/state.json"
    state = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    state["identity"]["config"]["training"]["seed"] = 5
    path.write_text(json.dumps(checkpoint.seal(state)))
    with pytest.raises(UserError, match=r"step-000000004 belong to another configuration.*training\.seed was 5"):
        resume(trained, folder, steps=5)


def test_an_edited_state_is_skipped(trained: Path, folder: Path):
    path = folder / "checkpoints/step-000000004/state.json"
    path.write_text(path.read_text().replace('"cpu_seconds": ', '"cpu_seconds": 1'))
    assert "Skipping a checkpoint" in resume(trained, folder, steps=5)


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_training_stops_where_its_folder_is_gone(fate: str, trained: Path, tmp_path: Path):
    """Nothing is made again, and another run that began in its place is left alone."""
    config, path = config_in(trained), tmp_path / "run"
    loop = loop_of(config, path, trained)
    with pytest.raises(UserError, match="was deleted or replaced while this run was training"):
        train_until_removed(loop, path, fate)
    assert not path.exists() or [p.name for p in path.iterdir()] == [".lock"]


def train_until_removed(loop, path: Path, fate: str) -> None:
    with loop.folder.locked():
        for event in loop.events(StopSignal()):
            if isinstance(event, Saved):
                shutil.rmtree(path)
                if fate == "replaced":
                    path.mkdir()
                    (path / ".lock").touch()


def test_a_full_disk_ends_in_a_sentence_and_leaves_what_was_saved(trained: Path, folder: Path, monkeypatch):
    before = sorted((folder / "checkpoints").iterdir())

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(UserError, match=r"Cannot write .*checkpoints/step-000000005: No space left on device"):
        resume(trained, folder, steps=5)
    monkeypatch.undo()
    assert sorted((folder / "checkpoints").iterdir()) == before
    resume(trained, folder, steps=5)


def test_a_training_that_fails_before_it_begins_leaves_nothing(tmp_path: Path):
    config = tiny("mdlm", tmp_path)
    missing = replace(config, text=replace(config.text, data=str(tmp_path / "none.txt")))
    (tmp_path / "empty").mkdir()
    for name in ("run", "empty"):
        with pytest.raises(UserError, match=r"none\.txt"):
            run(missing, tmp_path / name, tmp_path)
    assert not (tmp_path / "run").exists()
    assert [*(tmp_path / "empty").iterdir()] == []


@pytest.mark.parametrize("name", [".lock", ".pid", "metrics.jsonl", "samples/step-000000005.txt", "config.json"])
def test_a_run_writes_through_no_link(name: str, trained: Path, folder: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    shutil.copy(folder / name, precious) if (folder / name).exists() else precious.write_text("precious")
    before = precious.read_bytes()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(precious)
    with pytest.raises(UserError, match=r"link|not a regular file"):
        resume(trained, folder, steps=5, num_samples=1)
    assert precious.read_bytes() == before


def test_the_network_of_init_is_named_and_can_be_taken(trained: Path, tmp_path: Path):
    config = config_in(trained, steps=2)
    wider = apply_overrides(config, ["backbone.width=128", "denoiser.ngram_dim=8"])
    with pytest.raises(UserError) as caught:
        run(wider, tmp_path / "other", trained, init=trained / "run")
    for part in (
        "backbone.width is 64 there and 128 here",
        "--init-network",
        "backbone.width=64",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "other").exists()
    run(wider, tmp_path / "other", trained, init=trained / "run", init_network=True)
    folder = RunFolder(tmp_path / "other", 1)
    assert '"width": 64' in folder.config.read_text()
    with pytest.raises(UserError, match="init is missing"):
        run(wider, tmp_path / "third", trained, init_network=True)
