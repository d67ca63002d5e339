"""Writing files so that readers, and a crash at any point, see the old file or the new one, never a part of it."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

PARTIAL = ".partial-"
"""The names of unfinished files and folders begin with this; those a killed process left behind may be deleted."""

_ABANDONED = 60.0  # seconds after which an unfinished file that no process holds is deleted


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a new, empty file beside `path`, flushed to the disk and renamed to `path` if the block succeeds.

    If the block fails, `path` stays as it was. What killed processes left of the same file is deleted. Raises UserError
    as `check_target` does, and if the folder is missing or cannot be written.
    """
    path = Path(path)
    check_target(path)
    _remove_abandoned(path)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")  # others may write the same file
    handle = None
    try:
        with writing(path):
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # O_EXCL follows no link
            hold(handle)
            yield partial
            flush(partial)
            os.close(handle)  # Windows renames no open file
            handle = None
            os.replace(partial, path)
            flush(path.parent)
    finally:
        if handle is not None:
            os.close(handle)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` to `path` in UTF-8, atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Errors of the file system inside the block become UserError naming `path`: a full disk, a folder that is gone."""
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def make_folder(path: str | Path) -> Path:
    """Creates a folder unless it exists. Raises UserError if it cannot be created."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot create the folder {path}: {reason}.") from None
    return Path(path)


def check_target(path: str | Path) -> None:
    """Raises UserError if `path` is something other than a regular file or a free name.

    A link is refused too: replacing it would surprise its owner as much as writing to what it points to.
    """
    try:
        mode = os.lstat(path).st_mode
    except ValueError as error:
        raise UserError(f"Cannot write {str(path)!r}: {error}.") from None
    except OSError:  # a free name, or a folder that `atomic` cannot write in
        return
    if stat.S_ISLNK(mode):
        raise UserError(f"{path} is a symbolic link, which is not written through; delete it, or name its file.")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise UserError(f"{path} is {kind}; name a regular file to write.")


def check_new_folder(path: str | Path, content: str) -> None:
    """Raises UserError if `path` is a folder that is not empty, or no folder; `content` is what is to be written."""
    path = Path(path)
    if path.is_dir():
        if any(path.iterdir()):
            raise UserError(f"{path} is not empty; choose another folder for {content}.")
    elif path.exists() or path.is_symlink():
        raise UserError(f"{path} is a file; {content} needs a folder of its own.")


def remove(path: Path) -> None:
    """Deletes a folder or a file; a link, not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def flush(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hold(handle: int) -> bool:
    """Marks an open file as in use by this process, until it ends; False if another process uses it."""
    try:
        import fcntl
    except ImportError:  # Windows lets nobody delete an open file anyway
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nobody can tell, so nothing is deleted
        return False
    return True


def _remove_abandoned(path: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith(PARTIAL) and entry.name.endswith(f"-{path.name}"):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(partial: Path) -> None:
    status = os.lstat(partial)
    if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < _ABANDONED:
        return
    handle = os.open(partial, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if hold(handle):
            partial.unlink()
    finally:
        os.close(handle)
