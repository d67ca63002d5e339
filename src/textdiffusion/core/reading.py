"""Reading the files of a run, which may be damaged or hostile: regular files of bounded size, JSON of bounded depth.

Links are followed, because a model hub's cache consists of them; what they point to must be a regular file.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

from .errors import MissingFile, UserError

MAX_BYTES = 256 << 20
"""Bytes of a JSON file; a large vocabulary has 20 million."""
MAX_LOG_BYTES = 2 << 30
"""Bytes of a log with one JSON object per line."""
FOREIGN_BITS = 128
"""Bits of whole numbers in the files of others: `transformers` writes 10**30 for a length without limit."""
MAX_DEPTH = 64
"""Levels of lists and objects in JSON."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def open_regular(path: str | Path) -> BufferedReader:
    """Opens a regular file. Raises MissingFile, or UserError for folders, pipes, devices and unreadable files."""
    path = Path(path)
    try:
        # A pipe without a writer would otherwise wait forever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        is_link = path.is_symlink()
        raise MissingFile(f"{path} is {'a link to a file that does not exist' if is_link else 'missing'}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; it must be a file.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}.") from None
    try:
        _check_kind(path, os.fstat(handle).st_mode)
    except UserError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; it must be a file.")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a pipe or a device; it must be a regular file.")


def read_bytes(path: str | Path, *, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Raises UserError if it cannot be read, or has more than `limit` bytes."""
    with open_regular(path) as file:
        try:
            raw = file.read(limit + 1)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {_reason(error)}.") from None
    if len(raw) > limit:
        raise UserError(f"{path} has more than {limit:,} bytes, too many for a file of this kind.")
    return raw


def read_text(path: str | Path, *, limit: int = MAX_BYTES) -> str:
    """The text of a regular file in UTF-8. Raises UserError as `read_bytes` does, and for bytes that are not UTF-8."""
    try:
        return read_bytes(path, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"{path} is damaged: byte 0x{byte:02x} at offset {error.start} is not UTF-8.") from None


def read_object(path: str | Path, *, limit: int = MAX_BYTES, finite: bool = True, int_bits: int = 64) -> dict[str, Any]:
    """The object in a JSON file.

    Raises UserError as `read_text` and `parse_json` do, and for a value that is not an object.
    """
    value = parse_json(read_text(path, limit=limit), str(path), finite=finite, int_bits=int_bits)
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds {_NAMES[type(value)]} instead of a JSON object.")
    return value


def parse_json(text: str, where: str, *, finite: bool = True, int_bits: int = 64) -> Any:
    """The value of JSON text. `where` names it in errors; without `finite`, numbers may be NaN or infinite.

    Raises UserError for text that is not JSON, for more than `MAX_DEPTH` levels, for numbers that are not finite or do
    not fit in `int_bits` bits, and for strings with half a surrogate pair.
    """
    try:
        value = json.loads(text, parse_int=partial(_int, bits=int_bits), **(_FINITE if finite else {}))
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}.") from None
    except ValueError as error:
        raise UserError(f"{where} is damaged: {error}.") from None
    except RecursionError:
        raise _too_deep(where) from None
    level, has_escapes, depth = [value], "\\u" in text, 0
    while level:
        if has_escapes and any(isinstance(each, str) and _SURROGATE.search(each) for each in level):
            raise UserError(f"{where} is damaged: a string has half a surrogate pair, which is not a character.")
        if any(isinstance(each, (dict, list)) for each in level) and (depth := depth + 1) > MAX_DEPTH:
            raise _too_deep(where)
        level = [child for each in level for child in _children(each)]
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _too_deep(where: str) -> UserError:
    return UserError(f"{where} is damaged: its JSON is nested more than {MAX_DEPTH} levels deep.")


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


_FINITE: dict[str, Any] = {"parse_constant": _constant, "parse_float": _float}


def _int(text: str, bits: int) -> int:
    half = 1 << (bits - 1)
    if len(text) > bits or not -half <= (value := int(text)) < half:  # the length first: long texts take long to read
        shown = text if len(text) <= 40 else f"{text[:20]}... of {len(text):,} digits"
        raise ValueError(f"the number {shown} does not fit in {bits} bits")
    return value


_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
