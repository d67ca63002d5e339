"""`textdiffusion samplers RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .output import print_json, print_table
from .parsing import RunName


@dataclass(frozen=True)
class Command:
    """List the samplers that a run can use, with their settings: `sample RUN --sampler ddim:eta=1`."""

    run: RunName
    """The run's folder, or its repository id on the hub."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from ..config.config import to_dict
        from ..inference.api import TextDiffusion

        model = TextDiffusion.from_pretrained(self.run, device="cpu")
        own = type(model.config.sampler)
        rows: list[dict[str, Any]] = []
        for name, part in model.samplers().items():
            settings = {key: value for key, value in to_dict(part).items() if key != "kind"}
            doc = (type(part).__doc__ or "").strip().splitlines()[0]
            in_masks = not isinstance(model.model.process, part.processes)
            rows.append(
                {"name": name, "intended": type(part) is own, "in_masks": in_masks, "settings": settings, "what": doc}
            )
        rows.sort(key=lambda row: row["in_masks"])
        if self.json:
            print_json(rows)
            return
        shown = []
        for row in rows:
            settings = ",".join(f"{key}={value}" for key, value in row["settings"].items())
            marks = (" *" if row["intended"] else "") + (" +" if row["in_masks"] else "")
            shown.append((row["name"] + marks, settings, row["what"]))
        print_table(("SAMPLER", "SETTINGS", "WHAT IT DOES"), shown)
        print("* what the run is meant for")
        if any(row["in_masks"] for row in rows):
            print("+ writes token by token: places of pure noise are its masks")
