"""`textdiffusion recipes`, `textdiffusion samplers RUN` and `textdiffusion guides`"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

from .output import print_json, print_line, print_table
from .parsing import RunName


@dataclass(frozen=True)
class Recipes:
    """List the recipes, each with its idea and its variants; or describe one recipe in full."""

    recipe: Annotated[str, Positional, arg(metavar="[RECIPE]")] = ""
    """The recipe to describe in full."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from .. import recipes

        entries: list[dict[str, Any]] = []
        for name in [self.recipe] if self.recipe else recipes.names():
            idea, _, details = recipes.description(name).partition("\n")
            entries.append(
                {"name": name, "what": idea, "variants": recipes.variants(name), "more": details.strip("\n")}
            )
        if self.json:
            print_json(entries)
        elif self.recipe:
            print_line(recipes.description(self.recipe))
            print_line(f"\nVariants: {', '.join(entries[0]['variants'])}")
        else:
            rows = [(entry["name"], entry["what"], ", ".join(entry["variants"])) for entry in entries]
            print_table(("RECIPE", "IDEA", "VARIANTS"), rows)


@dataclass(frozen=True)
class Samplers:
    """List the samplers that a run can use, with their settings: `sample RUN --sampler ddim:eta=1`."""

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from ..core.registry import to_dict
        from ..inference.api import TextDiffusion

        run = TextDiffusion.from_pretrained(self.run, device="cpu")
        default = type(run.config.sampler)
        entries: list[dict[str, Any]] = []
        for name, sampler in run.samplers().items():
            in_masks = not isinstance(run.model.process, sampler.processes)
            entries.append(
                {
                    "name": name,
                    "intended": type(sampler) is default,
                    "in_masks": in_masks,
                    "settings": {key: value for key, value in to_dict(sampler).items() if key != "kind"},
                    "what": _summary(type(sampler)),
                }
            )
        entries.sort(key=lambda entry: entry["in_masks"])
        if self.json:
            print_json(entries)
            return
        rows = []
        for entry in entries:
            marks = (" *" if entry["intended"] else "") + (" +" if entry["in_masks"] else "")
            rows.append((entry["name"] + marks, _typed(entry["settings"]), entry["what"]))
        print_table(("SAMPLER", "SETTINGS", "WHAT IT DOES"), rows)
        print_line("* default for this run")
        if any(entry["in_masks"] for entry in entries):
            print_line("+ writes token by token: positions of pure noise count as masks")


@dataclass(frozen=True)
class Guides:
    """List the ways to steer sampling, with their settings: `sample RUN --guide word:text=pear`."""

    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from ..config.discovery import import_parts
        from ..guidance.base import GuideConfig

        import_parts()
        entries: list[dict[str, Any]] = []
        for name, guide in GuideConfig.choices().items():
            fields = dataclasses.fields(guide)
            settings = {f.name: "..." if f.default is dataclasses.MISSING else str(f.default) for f in fields}
            entries.append({"name": name, "settings": settings, "what": _summary(guide)})
        if self.json:
            print_json(entries)
            return
        rows = [(entry["name"], _typed(entry["settings"]), entry["what"]) for entry in entries]
        print_table(("GUIDE", "SETTINGS", "WHAT IT DOES"), rows)


def _summary(part: type) -> str:
    """The first paragraph of a part's docstring, in one line."""
    return " ".join((part.__doc__ or "").partition("\n\n")[0].split())


def _typed(settings: dict[str, Any]) -> str:
    """Settings as a user types them: `steps=64,grid=karras:rho=7`, further settings of a part as `grid.name=value`."""
    words: list[str] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            nested = {name: each for name, each in value.items() if name != "kind"}
            value = value["kind"] + "".join(
                f"{f',{key}.' if i else ':'}{name}={_number(each)}" for i, (name, each) in enumerate(nested.items())
            )
        words.append(f"{key}={_number(value)}")
    return ",".join(words)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
