"""Checksums of all files of a folder, in the format of `sha256sum`, so that a damaged cache is noticed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..core.errors import UserError

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")

_verified: set[tuple[str, int, int, str]] = set()
"""Files that had their checksum: path, size, time of change and checksum, for as long as the process lasts."""


class DamagedFolder(UserError):
    """A file is missing, or is not as it was written."""


def write_checksums(folder: Path) -> None:
    """Write the checksums of the files in `folder` to `SHA256SUMS`."""
    lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != CHECKSUMS]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Raises DamagedFolder, naming a file, if one of `SHA256SUMS` is missing or has changed. Reads every file once."""
    try:
        lines = (folder / CHECKSUMS).read_bytes()[: 1 << 20].decode("utf-8", "replace").splitlines()
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {CHECKSUMS}
        if unlisted := names - {line.partition("  ")[2] for line in lines}:
            raise _damaged(folder, folder / min(unlisted), f"is not in {CHECKSUMS}")
        for line in lines:
            if not (match := _LINE.fullmatch(line)):
                raise _damaged(folder, folder / CHECKSUMS, "cannot be read")
            checksum, path = match[1], folder / match[2]
            status = path.stat()
            key = str(path), status.st_size, status.st_mtime_ns, checksum
            if key not in _verified:
                if _sha256(path) != checksum:
                    raise _damaged(folder, path, f"differs from its checksum in {CHECKSUMS}")
                _verified.add(key)
    except FileNotFoundError as error:
        raise _damaged(folder, Path(error.filename), "is missing") from None
    except OSError as error:
        raise _damaged(folder, Path(error.filename or folder), f"cannot be read ({error.strerror or error})") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(folder: Path, path: Path, problem: str) -> DamagedFolder:
    return DamagedFolder(f"Prepared text is damaged: {path} {problem}. Delete the folder {folder} to prepare it again.")
