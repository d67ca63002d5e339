"""Text is known by its content: hashes of files, and what the names of texts last stood for."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_text
from ..core.hashing import file_sha256, json_hash
from ..core.reading import read_object
from .config import TextConfig

SETTLED = 2.0  # seconds after a change in which another one could leave the same time
_HASH = re.compile("[0-9a-f]{64}")

_hashes: dict[tuple[str, int, int], str] = {}
"""Hashes of files by path, size and time of change, for as long as the process lasts."""


def content_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes, computed again only if the file has changed. Raises UserError if unreadable."""
    key = _key(path)
    if key not in _hashes:
        _hashes[key] = file_sha256(path)
    return _hashes[key]


def file_size(path: Path) -> int:
    """The size in bytes. Raises UserError if the file cannot be read."""
    return _key(path)[1]


class KnownText:
    """What is kept in the cache about the text that a name stands for under these settings: its identity and hashes."""

    def __init__(self, cache: Path, name: str, config: TextConfig) -> None:
        # A name without a file (built in, of the hub) is a path all the same, so that every name is handled alike.
        request = [os.path.abspath(name), config.fields, config.encoding, config.limit, config.skip_bad]
        self.path = cache / "texts" / f"{json_hash(request)}.json"
        self._stored = self._read()

    @property
    def identity(self) -> list[Any] | None:
        """The identity of the files when they were last prepared; None if they never were."""
        return self._stored.get("identity")

    def load_hashes(self) -> None:
        """Make the hashes of files that have not changed since available to `content_hash`."""
        files = self._stored.get("files")
        for entry in files if isinstance(files, list) else ():
            with suppress(TypeError, ValueError):
                path, size, changed, digest = entry
                if isinstance(path, str) and isinstance(digest, str) and _HASH.fullmatch(digest):
                    _hashes.setdefault((path, int(size), int(changed)), digest)

    def store(self, identity: list[Any], paths: list[Path]) -> None:
        """Keep the identity, and the hashes of files that have not changed just now. Nothing depends on its success."""
        keys = [_key(path) for path in paths]
        settled = time.time_ns() - int(1e9 * SETTLED)
        files = [[*key, _hashes[key]] for key in keys if key in _hashes and key[2] < settled]
        if self._stored == (content := json.loads(json.dumps({"identity": identity, "files": files}))):
            return
        with suppress(UserError, OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(content) + "\n")

    def _is_valid(self, stored: Any) -> bool:
        """Whether this is what `store` writes, with the identity of files."""
        try:
            return all(_HASH.fullmatch(digest) and isinstance(kind, str) for kind, digest in stored["identity"][0])
        except (TypeError, ValueError, KeyError, IndexError):
            return False

    def _read(self) -> dict[str, Any]:
        try:
            stored = read_object(self.path)
        except UserError:  # missing or damaged: it is written again
            return {}
        return stored if self._is_valid(stored) else {}


def _key(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    return str(path.resolve()), status.st_size, status.st_mtime_ns
