"""`textdiffusion recipes`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .output import print_json, print_table


@dataclass(frozen=True)
class Command:
    """List the recipes: what each is in a line, and its variants."""

    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from .. import recipes

        found: list[dict[str, Any]] = []
        for name in recipes.names():
            doc = (recipes.get(name).__doc__ or "").strip().splitlines()
            found.append({"name": name, "what": doc[0] if doc else "", "variants": recipes.variants(name)})
        if self.json:
            print_json(found)
        else:
            rows = [(r["name"], r["what"], ", ".join(r["variants"])) for r in found]
            print_table(("RECIPE", "WHAT IT IS", "VARIANTS"), rows)
