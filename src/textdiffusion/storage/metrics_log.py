"""metrics_log"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def parse_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """The whole lines of a JSONL file and what they say: the last may have been cut short by the end of its process."""
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
    """What the `metrics.jsonl` of a run's folder says; nothing where there is none."""
    return [] if folder is None else [data for _, data in parse_lines(folder / "metrics.jsonl")]
