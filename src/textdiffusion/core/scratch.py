"""Folders for unfinished work: locked while they are used, and deleted by whoever finds them abandoned."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError

LOCK = ".lock"
ABANDONED_AFTER = 24 * 3600.0  # seconds without a change, for a folder without a lock
_NAME = re.compile(r"\.[\w-]+\.[0-9a-f]{8}")


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new empty folder `.NAME.HEX` inside `parent`; move what it holds, or all of it, to keep it.

    It is deleted at the end. If the process is killed before, the next call with this `parent` deletes it. Raises
    UserError if `parent` cannot be written to.
    """
    path = parent / f".{name}.{secrets.token_hex(4)}"
    lock = FileLock(_lock_path(path))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent)
        lock.acquire(timeout=0)
        path.mkdir()
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot write in the folder {parent}: {reason}.") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _unlock(lock)


def remove_abandoned(parent: Path) -> None:
    """Delete the scratch folders in `parent` that no process uses."""
    for path in parent.iterdir():
        with suppress(OSError, Timeout, NotImplementedError):  # of another user, in use, or deleted meanwhile
            if _NAME.fullmatch(path.name.removesuffix(LOCK)):
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    folder = path.with_name(path.name.removesuffix(LOCK))
    if not _lock_path(folder).exists():
        if time.time() - folder.stat().st_mtime > ABANDONED_AFTER:
            shutil.rmtree(folder)
        return
    lock = FileLock(_lock_path(folder))
    lock.acquire(timeout=0)
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        _unlock(lock)


def _unlock(lock: FileLock) -> None:
    """Delete the lock's file while it is still held, so that nobody can take it in between."""
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    with suppress(OSError):
        lock.release()


def _lock_path(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK)
