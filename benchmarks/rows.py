"""What the long benchmarks share: rows of figures, each measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Rows(list[Row]):
    """The rows in a file of JSON lines; a new one is written as soon as it is there."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        super().__init__(json.loads(line) for line in lines)
        self.path = path

    def having(self, **values: Any) -> list[Row]:
        """Those with all these values."""
        return [row for row in self if values.items() <= row.items()]

    def row(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> Row:
        """The row that has the values of `key`; one that is missing is made, stored and printed."""
        if matches := self.having(**key):
            return matches[0]
        row = {**key, **make()}
        self.append(row)
        line = json.dumps(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
        return row
