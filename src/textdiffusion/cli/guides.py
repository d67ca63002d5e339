"""`textdiffusion guides`"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .output import print_json, print_table


@dataclass(frozen=True)
class Command:
    """List what sampling can be steered by, with settings: `sample RUN --guide word:text=pear`."""

    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from ..config.overrides import kinds_of
        from ..parts import GuidePart

        found: list[dict[str, Any]] = []
        for name, kind in kinds_of(GuidePart).items():
            fields: Any = dataclasses.fields(kind)  # pyrefly: ignore
            settings = {f.name: "..." if f.default is dataclasses.MISSING else str(f.default) for f in fields}
            doc = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
            found.append({"name": name, "settings": settings, "what": doc})
        if self.json:
            print_json(found)
            return
        rows = []
        for row in found:
            settings = ",".join(f"{key}={value}" for key, value in row["settings"].items())
            rows.append((row["name"], settings, row["what"]))
        print_table(("GUIDE", "SETTINGS", "WHAT IT DOES"), rows)
