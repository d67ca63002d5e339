"""Files are written completely or not at all, with the usual permissions, and only where the user named a file."""

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.core.files import PARTIAL, atomic, check_new_folder, make_folder, write_text


def test_a_file_is_replaced_with_the_permissions_of_any_new_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    previous = os.umask(0o027)
    try:
        write_text(path, "old")
        write_text(path, "new")
    finally:
        os.umask(previous)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [*tmp_path.iterdir()] == [path]


def test_links_pipes_devices_and_folders_are_not_written(tmp_path: Path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, problem in {
        "link": "a symbolic link",
        "dangling": "a symbolic link",
        "pipe": "a pipe or a device",
        "folder": "a folder",
    }.items():
        with pytest.raises(UserError, match=f"{name} is {problem}"):
            write_text(tmp_path / name, "new")
    assert (tmp_path / "file").read_text() == "old"
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match="a pipe or a device"):
        write_text("/dev/null", "new")


def _write_half(path: Path, failure: Exception | None) -> None:
    """Fails while a file is written; without a failure, its folder vanishes."""
    with atomic(path) as partial:
        partial.write_text("half")
        if failure:
            raise failure
        partial.unlink()
        path.parent.rmdir()


def test_what_fails_leaves_the_old_file_and_says_why(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    for failure in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ZeroDivisionError()):
        with pytest.raises((UserError, ZeroDivisionError)) as caught:
            _write_half(path, failure)
        if isinstance(failure, OSError):
            assert str(caught.value) == f"Cannot write {path}: No space left on device."
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(UserError, match=r"Cannot write .*No such file"):
        write_text(tmp_path / "none/a.txt", "new")
    with pytest.raises(UserError, match=r"Cannot write .*Not a directory"):
        write_text(path / "a.txt", "new")
    with pytest.raises(UserError, match="Cannot create the folder"):
        make_folder(path / "folder")
    with pytest.raises(UserError, match=r"Cannot write .*null byte"):
        write_text(f"{tmp_path}/a\0b", "new")


def test_a_folder_that_vanishes_while_a_file_is_written_is_named(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match=r"Cannot write .*folder/a\.txt"):
        _write_half(folder / "a.txt", None)


def test_what_a_killed_process_left_is_removed_and_what_another_one_writes_is_not(tmp_path: Path):
    left, used, other = (tmp_path / f"{PARTIAL}{name}" for name in ("1-a.txt", "2-a.txt", "3-b.txt"))
    for path in (left, used, other):
        path.write_text("half")
        os.utime(path, (time.time() - 100,) * 2)
    young = tmp_path / f"{PARTIAL}4-a.txt"
    young.write_text("just begun")
    with used.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_text(tmp_path / "a.txt", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", used.name, other.name, young.name}


def test_a_folder_with_something_in_it_is_not_a_new_one(tmp_path: Path):
    check_new_folder(tmp_path, "the classifier")
    check_new_folder(tmp_path / "new", "the classifier")
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="not empty; choose another folder for the classifier"):
        check_new_folder(tmp_path, "the classifier")
    with pytest.raises(UserError, match="is a file; the classifier needs a folder"):
        check_new_folder(tmp_path / "a", "the classifier")
