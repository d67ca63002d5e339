"""Which files a name stands for: a file, a folder with its subfolders, or a pattern."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import UserError
from .binary_files import HEAD, binary_kind
from .compression import COMPRESSED_SUFFIXES, file_type
from .tables import TABLE_SUFFIXES

TEXT_SUFFIXES = (".txt", ".text", ".md")
FOLDER_SUFFIXES = TEXT_SUFFIXES + TABLE_SUFFIXES
"""What is read of a folder; other files are read where a path or a pattern names them."""


class MissingText(UserError):
    """No file has the name given as data."""


def find_files(name: str, notes: list[str] | None = None) -> list[Path]:
    """The sorted files of a path, a folder (with its subfolders) or a pattern. `notes` receives what was skipped.

    Links are followed. Raises MissingText if there is no such file, and UserError for a folder without text.
    """
    try:
        paths, skipped = _find(name)
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, with NUL, or of an unknown user
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{_shown(name)} cannot be opened: {reason}.") from None
    if notes is not None:
        notes += [f"{name}: {count} {kind} skipped" for kind, count in sorted(skipped.items())]
    return paths


def _find(name: str) -> tuple[list[Path], Counter[str]]:
    path = Path(name).expanduser()
    skipped: Counter[str] = Counter()
    if path.is_dir():
        if paths := _readable(_walk(path, skipped), skipped):
            return paths, skipped
        raise UserError(_no_text(name, path))
    if path.exists():
        return [path], skipped
    if path.is_symlink():
        raise MissingText(f"{name} is a link to {os.readlink(path)}, which does not exist.")
    if glob.has_magic(name):
        matches = (Path(match) for match in glob.iglob(_pattern(path), recursive=True))
        if paths := _readable((match for match in matches if not match.is_dir()), skipped):
            return paths, skipped
        raise MissingText(f"No file matches {name}.")
    raise MissingText(
        f"There is no file or folder {_shown(name)}. Built-in data are shakespeare, grammar and tasks such as sudoku; "
        "hub data sets are hf:NAME."
    )


def _pattern(path: Path) -> str:
    """The path as a pattern in which the folders that exist stand for themselves, such as one called `[1]`."""
    parts = path.parts
    for count in range(len(parts) - 1, 0, -1):
        if (parent := Path(*parts[:count])).is_dir():
            return os.path.join(glob.escape(str(parent)), *parts[count:])
    return str(path)


def _walk(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The files of text in a folder and its subfolders, without hidden ones, each folder once."""
    seen = set()

    def cannot_open(_: OSError) -> None:
        skipped["folder(s) that cannot be opened"] += 1

    for root, folders, files in os.walk(folder, followlinks=True, onerror=cannot_open):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above or beside it
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and file_type(Path(name)) in FOLDER_SUFFIXES:
                yield Path(root, name)


def _readable(paths: Iterator[Path], skipped: Counter[str]) -> list[Path]:
    """The regular files among these, sorted, without links to one another."""
    regular = []
    for path in sorted(paths):
        if path.is_file():
            regular.append(path)
        elif path.is_symlink() and not path.exists():
            skipped["broken link(s)"] += 1
        else:
            skipped["pipe(s) or device(s)"] += 1
    originals = {path.resolve() for path in regular if not path.is_symlink()}
    return [path for path in regular if not path.is_symlink() or path.resolve() not in originals]


def _no_text(name: str, folder: Path) -> str:
    suffixes = Counter(path.suffix for path in folder.rglob("*.*") if path.is_file() and _looks_like_text(path))
    suffix = suffixes.most_common(1)[0][0] if suffixes else ".py"
    read = f"{', '.join(FOLDER_SUFFIXES)} (also with {', '.join(COMPRESSED_SUFFIXES)})"
    return (
        f"The folder {_shown(name)} holds no text: no file ends in {read}. Name other files by a pattern, such as "
        f"'{_shown(name)}/**/*{suffix}'."
    )


def _looks_like_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return path.suffix.isascii() and not binary_kind(head)


def _shown(name: str) -> str:
    """A name as it can be printed, shortened."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return text if len(text) < 200 else f"{text[:100]}..."
