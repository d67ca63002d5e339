"""Hashes of files and of JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .reading import open_regular


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises UserError if it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_hash(data: Any) -> str:
    """A short hash of JSON, whatever the order of its keys: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
