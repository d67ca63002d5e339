"""Scratch folders: gone at the end, gone after a crash, and never taken from a process that uses them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.core.scratch import ABANDONED_AFTER, scratch_folder

HOLD = """
import sys
from pathlib import Path
from textdiffusion.core.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "work") as folder:
    (folder / "large").write_text("x")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_remains(tmp_path):
    with scratch_folder(tmp_path / "new", "work") as folder:
        (folder / "a").write_text("a")
        (folder / "a").rename(tmp_path / "new/kept")
    with pytest.raises(KeyError), scratch_folder(tmp_path / "new", "work") as folder:
        raise KeyError
    assert names(tmp_path / "new") == ["kept"]


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = process.stdout.readline().strip()
        with scratch_folder(tmp_path, "work"):
            assert (tmp_path / held / "large").exists()  # in use
        process.kill()
    assert names(tmp_path) == [held, f"{held}.lock"]
    with scratch_folder(tmp_path, "other"):
        assert not (tmp_path / held).exists()
    assert names(tmp_path) == []


def test_without_a_lock_only_old_ones_are_deleted(tmp_path):
    for name in (".0123456789abcdef.aaaaaaaa", ".0123456789abcdef.bbbbbbbb", ".git", "0123456789abcdef"):
        (tmp_path / name).mkdir()
    old = time.time() - ABANDONED_AFTER - 60
    for name in (".0123456789abcdef.aaaaaaaa", ".git", "0123456789abcdef"):
        os.utime(tmp_path / name, (old, old))
    with scratch_folder(tmp_path, "work"):
        pass
    assert names(tmp_path) == [".0123456789abcdef.bbbbbbbb", ".git", "0123456789abcdef"]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"Cannot write in the folder .*file"),
        scratch_folder(tmp_path / "file", "work"),
    ):
        pass
