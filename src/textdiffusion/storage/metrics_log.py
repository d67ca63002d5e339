"""Reading a run's `metrics.jsonl`, which its training may still be writing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def parse_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """The complete lines of a JSONL file with their objects; skips a line that a killed process left unfinished."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            data = json.loads(line)
        except ValueError:
            continue
        if line.endswith("\n") and isinstance(data, dict):
            yield line, data


def history(folder: Path | None) -> list[dict[str, Any]]:
    """The events in the `metrics.jsonl` of a run folder; none if there is no folder or no file."""
    return [] if folder is None else [data for _, data in parse_lines(folder / "metrics.jsonl")]
