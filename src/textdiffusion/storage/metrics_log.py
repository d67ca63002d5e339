"""Reading a run's `metrics.jsonl`, which its training may still be writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.reading import MAX_LOG_BYTES, parse_json, read_bytes

REQUIRED = {"logged": ("loss", "cpu_seconds"), "validated": ("bits", "error", "raw_bits", "raw_error", "windows")}
"""Fields of an event that others read."""
NUMBERS = ("loss", "bits", "error", "raw_bits", "raw_error")
"""Numbers, or null where they are not finite."""


def parse_lines(path: Path, unreadable: Callable[[int], None] = lambda number: None) -> Iterator[tuple[str, dict]]:
    """The complete lines of a log with their events; none where there is no file.

    Skips a last line that a killed process left unfinished, and lines that are not events of a run: their numbers, from
    1, go to `unreadable`. Raises UserError for a file that cannot be read.
    """
    if not path.exists() and not path.is_symlink():
        return
    lines = read_bytes(path, limit=MAX_LOG_BYTES).split(b"\n")
    for number, raw in enumerate(lines[:-1], 1):  # what follows the last line break is unfinished, or empty
        line = raw.decode("utf-8", "replace")
        event = None if "\N{REPLACEMENT CHARACTER}" in line else _event(line)
        if event is None:
            unreadable(number)
        else:
            yield line + "\n", event


def history(folder: Path | None) -> list[dict[str, Any]]:
    """The events in the `metrics.jsonl` of a run folder; none if there is no folder or no file."""
    return [] if folder is None else [data for _, data in parse_lines(folder / "metrics.jsonl")]


def _event(line: str) -> dict[str, Any] | None:
    """The event of a line: an object with a step, whose usual fields have the usual types (None: it is none)."""
    try:
        data = parse_json(line, "the line")
    except UserError:
        return None
    if not isinstance(data, dict) or not isinstance(kind := data.get("event"), str) or not _is_count(data.get("step")):
        return None
    if not all(name in data for name in REQUIRED.get(kind, ())) or not _is_count(data.get("windows", 0)):
        return None
    if not all(data.get(name) is None or _is_number(data[name]) for name in NUMBERS):
        return None
    if kind == "logged" and not _is_count(data.get("tokens")):
        return None
    return data if _is_number(data.get("cpu_seconds", 0.0)) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
