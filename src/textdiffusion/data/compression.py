"""Reads gzip, bzip2 and xz files as what they hold. Their first bytes tell them, whatever their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..core.errors import UserError

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz")
_NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}


def compression(head: bytes) -> str:
    """The suffix of the compressed file that begins with `head` (10 bytes), or an empty string."""
    if head.startswith(b"\x1f\x8b\x08"):
        return ".gz"
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return ".bz2"
    return ".xz" if head.startswith(b"\xfd7zXZ\x00") else ""


@contextmanager
def open_decompressed(path: Path) -> Iterator[tuple[BinaryIO, io.BufferedIOBase]]:
    """The file as it is, whose position is the progress, and the stream of its content.

    Raises UserError if the file cannot be read, or if its compressed data turn out to be damaged or cut off.
    """
    kind = ""
    try:
        with path.open("rb") as raw:
            kind = compression(raw.peek(10)[:10])
            yield raw, _decompressor(raw, kind)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(path, kind, error) from None
    except OSError as error:
        if error.errno is None and kind:  # bz2 has no error of its own
            raise _damaged(path, kind, error) from None
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _decompressor(raw: io.BufferedReader, kind: str) -> io.BufferedIOBase:
    match kind:
        case ".gz":
            return gzip.GzipFile(fileobj=raw)
        case ".bz2":
            return bz2.BZ2File(raw)
        case ".xz":
            return lzma.LZMAFile(raw)
        case _:
            return raw


def _damaged(path: Path, kind: str, error: Exception) -> UserError:
    return UserError(f"{path} is not a complete {_NAMES[kind]} file: {str(error).rstrip('.')}.")


def file_type(path: Path) -> str:
    """The suffix in lower case; of a compressed file, the one before .gz, .bz2 or .xz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED_SUFFIXES else suffix
