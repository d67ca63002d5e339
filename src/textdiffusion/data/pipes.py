"""Text that can be read only once: pipes, standard input, process substitution. It is copied to a file first."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..core.errors import UserError
from ..core.scratch import scratch_folder
from .compression import open_decompressed

MAX_BYTES = 8 << 30
MAX_SILENCE = 60.0  # seconds without a byte
STDIN = ("-", "/dev/stdin")
_BLOCK = 1 << 20  # bytes


def is_pipe(name: str) -> bool:
    """Whether the text of this name can be read only once. Raises UserError for a terminal and for devices."""
    if name in STDIN:
        if sys.stdin is not None and os.isatty(0):
            raise UserError(f"{name} is a terminal. Name a file, or pipe the text into the command.")
        return True
    try:
        mode = os.stat(Path(name).expanduser()).st_mode
    except (OSError, ValueError, RuntimeError):  # whoever looks for the file says so
        return False
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise UserError(f"{name} is a device, not a text.")
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or name.startswith(("/dev/", "/proc/"))


def copy_pipe(name: str, folder: Path, *, records: bool) -> Path:
    """Copy the text to a file in `folder`, named by its hash, so that equal text has one file.

    `records`: the text consists of records, of a kind that its beginning tells. Raises UserError if nothing comes for
    `MAX_SILENCE` seconds or if there are more than `MAX_BYTES`.
    """
    with scratch_folder(folder, "pipe") as scratch:
        digest, path = hashlib.sha256(), scratch / "text"
        try:
            with path.open("wb") as file:
                for block in read_pipe(name):
                    digest.update(block)
                    file.write(block)
            target = folder / f"pipe-{digest.hexdigest()[:16]}{_record_type(path) if records else '.txt'}"
            if not target.exists():
                path.replace(target)
        except OSError as error:
            raise UserError(f"The text of {name} cannot be kept in {folder}: {error.strerror or error}.") from None
    return target


def read_pipe(name: str) -> Iterator[bytes]:
    """The blocks of a pipe, up to its end. Raises UserError as `copy_pipe` does."""
    try:
        if name in STDIN:
            handle = os.dup(0)
        else:  # without O_NONBLOCK, opening a pipe that nobody writes to waits forever
            handle = os.open(Path(name).expanduser(), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None
    num_bytes = 0
    try:
        while True:
            _wait(handle, name)
            block = os.read(handle, _BLOCK)
            if not block:
                return
            if not num_bytes and not block.strip(b"\0"):
                raise UserError(f"{name} gives NULs, not text.")
            num_bytes += len(block)
            if num_bytes > MAX_BYTES:
                raise UserError(f"{name} gives more than {MAX_BYTES >> 30} GiB. Save the text to a file and name that.")
            yield block
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None
    finally:
        os.close(handle)


def _wait(handle: int, name: str) -> None:
    """Wait for bytes, or for the end."""
    with suppress(ImportError, AttributeError):  # Windows
        import select

        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(1000 * MAX_SILENCE):
            raise UserError(f"Nothing came through {name} for {MAX_SILENCE:g} seconds. Does anything write to it?")


def _record_type(path: Path) -> str:
    """The suffix of a file of records, from its beginning."""
    with open_decompressed(path) as (_, stream):
        head = stream.read(1 << 16)
    start = head.decode("utf-8-sig", "replace").lstrip()
    if head.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith("{"):
        return ".jsonl"
    if start.startswith("["):
        return ".json"
    return ".tsv" if "\t" in start.split("\n", 1)[0] else ".csv"
