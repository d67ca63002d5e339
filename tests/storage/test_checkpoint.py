"""Checkpoints and the run folder survive crashes at every point, damage, and each other."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from tests.training.tiny import tiny
from textdiffusion.core import files
from textdiffusion.core.errors import UserError
from textdiffusion.storage import checkpoint
from textdiffusion.storage.checkpoint import RAW, STATE, Best, Checkpoints, TrainingState
from textdiffusion.storage.weights import load_tensors
from textdiffusion.training import run_folder
from textdiffusion.training.run_folder import RunFolder


def save(checkpoints: Checkpoints, step: int, best: Best | None = None) -> None:
    state = TrainingState(step=step, best=best, unlogged={"loss": [1.5, 0.1]})
    checkpoints.save(state, {RAW: {"weight": torch.full((3,), float(step))}})


def latest(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    said: list[str] = []
    found = checkpoints.latest(said.append)
    if found is None:
        return None, said
    path, state = found
    assert checkpoint.read_tensors(path, RAW)["weight"].tolist() == [float(state.step)] * 3
    return state.step, said


def test_state_survives_the_disk(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 7, Best(7, 2.5))
    found = checkpoints.latest(print)
    assert found is not None
    assert found[1] == TrainingState(step=7, best=Best(7, 2.5), unlogged={"loss": [1.5, 0.1]})


def test_the_latest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        save(checkpoints, step, Best(2, 1.0) if step >= 2 else None)
    assert [path.name for path in checkpoints.paths()] == [f"step-{n:09d}" for n in (2, 5, 6)]


POINTS = ["save_tensors", "file_sha256", "flush", "mkdir", "write_text", "rename", "rmtree"]


class Crash(Exception):
    """The process ends here."""


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("before", [(1,), (1, 2), (2,)])
def test_a_crash_at_any_point_of_a_save_leaves_a_whole_checkpoint(before, point, tmp_path, monkeypatch):
    owner = {"mkdir": Path, "write_text": Path, "rename": Path, "rmtree": checkpoint.shutil}.get(point, checkpoint)
    original = getattr(owner, point)
    for call in count(1):
        path = tmp_path / str(call)
        for step in before:
            save(Checkpoints(path, keep=2), step)
        calls = 0

        def crash(*args, call=call, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Crash
            return original(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(owner, point, crash)
            try:
                save(Checkpoints(path, keep=len(before)), 2)
            except Crash:
                pass
            else:
                break  # it has no more calls than that
        step, said = latest(Checkpoints(path, keep=len(before)))
        assert step in (1, 2)
        assert said == []
        checkpoints = Checkpoints(path, keep=1)
        save(checkpoints, 3)
        assert latest(checkpoints) == (3, [])
        assert [each.name for each in path.iterdir()] == ["step-000000003"]
    assert call > 1
    assert calls == call - 1


def cut(path: Path) -> None:
    os.truncate(path / RAW, (path / RAW).stat().st_size // 2)


def flip(path: Path) -> None:
    raw = bytearray((path / RAW).read_bytes())
    raw[-1] ^= 1
    (path / RAW).write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        lambda path: (path / RAW).unlink(),
        lambda path: (path / STATE).unlink(),
        lambda path: (path / STATE).write_text('{"step": 2'),
        lambda path: (path / STATE).write_text("[]"),
        lambda path: (path / STATE).write_text("{}"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_with_a_message(damage, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    save(checkpoints, 1)
    save(checkpoints, 2)
    damage(tmp_path / "step-000000002")
    step, said = latest(checkpoints)
    assert step == 1
    assert len(said) == 1
    assert "step-000000002" in said[0]
    save(checkpoints, 2)
    assert latest(checkpoints) == (2, [])


def test_damaged_checkpoints_of_later_steps_do_not_push_out_whole_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 10, Best(10, 2.5))
    save(checkpoints, 20, Best(10, 2.5))
    cut(tmp_path / "step-000000020")
    assert latest(checkpoints)[0] == 10
    save(checkpoints, 15, Best(10, 2.5))
    assert latest(checkpoints) == (15, [])
    assert [path.name for path in checkpoints.paths()] == ["step-000000010", "step-000000015"]


def test_a_crash_while_a_file_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, keep_checkpoints=1)
    run.export({"weight": torch.zeros(2)})

    def crash(path):
        raise Crash

    monkeypatch.setattr(files, "flush", crash)
    with pytest.raises(Crash):
        run.export({"weight": torch.ones(2)})
    assert load_tensors(run.weights)["weight"].tolist() == [0.0, 0.0]
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


HOLD = """
import sys, time
from pathlib import Path
from textdiffusion.training.run_folder import RunFolder
from textdiffusion.storage.weights import load_tensors
with RunFolder(Path(sys.argv[1]), 1).locked():
    print("locked", flush=True)
    time.sleep(100)
"""


def test_a_run_folder_has_one_writer_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    run = RunFolder(tmp_path, keep_checkpoints=1)
    with pytest.raises(UserError, match=f"Process {holder.pid} is training"), run.locked():
        pass
    holder.kill()
    holder.communicate()
    with run.locked():
        assert (tmp_path / ".pid").read_text() == f"{os.getpid()}\n"


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path):
    config = tiny("mdlm", tmp_path)
    run = RunFolder(tmp_path / "run", keep_checkpoints=1)
    run.check(config)
    run.path.mkdir()
    run.check(config)
    run.config.write_text(run_folder.configuration.dumps(config))
    longer = replace(
        config, training=replace(config.training, steps=99, keep_checkpoints=9, log_every=2, max_minutes=1.0)
    )
    run.check(longer)
    other = replace(
        config, backbone=replace(config.backbone, width=128), training=replace(config.training, lr=0.5, batch_size=4)
    )
    with pytest.raises(UserError) as caught:
        run.check(other)
    for part in (
        "backbone.width was 64, now 128",
        "training.lr was 0.003, now 0.5",
        "training.batch_size was 8, now 4",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"codec.kind was 'tokens', now 'embeddings'; process.kind"):
        run.check(tiny("cdcd", tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    config = tiny("mdlm", tmp_path)
    with pytest.raises(UserError, match="not empty and not a run"):
        RunFolder(tmp_path, keep_checkpoints=1).check(config)
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex", keep_checkpoints=1).check(config)
