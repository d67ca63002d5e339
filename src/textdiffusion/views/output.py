"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textdiffusion.errors import UserError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place if the block succeeds and is removed if it fails.

    Raises UserError where the folder is missing or cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)
