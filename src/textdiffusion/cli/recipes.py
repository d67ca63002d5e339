"""`textdiffusion recipes`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

from .output import print_json, print_table


@dataclass(frozen=True)
class Command:
    """List the recipes: what each is in a line, and its variants. With a name: all there is to say of that one."""

    recipe: Annotated[str, Positional, arg(metavar="[RECIPE]")] = ""
    """One of them."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from .. import recipes

        found: list[dict[str, Any]] = []
        for name in [self.recipe] if self.recipe else recipes.names():
            what, _, more = recipes.description(name).partition("\n")
            found.append({"name": name, "what": what, "variants": recipes.variants(name), "more": more.strip("\n")})
        if self.json:
            print_json(found)
        elif self.recipe:
            print(recipes.description(self.recipe))
            print(f"\nVariants: {', '.join(found[0]['variants'])}")
        else:
            rows = [(r["name"], r["what"], ", ".join(r["variants"])) for r in found]
            print_table(("RECIPE", "WHAT IT IS", "VARIANTS"), rows)
