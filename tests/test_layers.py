"""The layers of the package: a file imports from its own package or from a layer below, never in a circle.

Imports for types alone and imports inside functions count too, because a reader follows those as well.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from textdiffusion.config.discovery import import_parts
from textdiffusion.core.registry import Part

SRC = Path(__file__).parents[1] / "src/textdiffusion"

LAYERS = """
__main__
cli
__init__ | serve | evaluation | published
inference
recipes | training
config
guidance | views
networks | objectives | samplers | scoring
data | diffusion | storage
core
"""
"""From top to bottom. Packages of one line do not import each other."""

LEVEL = {name: level for level, line in enumerate(LAYERS.split("\n")) for name in line.replace("|", " ").split()}
MAX_FLOORS = 10


def files() -> dict[str, Path]:
    """Every module by its dotted name below the package; a package is the file `__init__.py` in its folder."""
    return {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in sorted(SRC.rglob("*.py"))}


def imports(module: str, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that a module imports, wherever in the file."""
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(modules[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            path = [*base, *(node.module or "").split(".")] if node.module else base
            if not node.level:
                if path[0] != "textdiffusion":
                    continue
                path = path[1:]
            for alias in node.names:
                yield _module([*path, alias.name], modules)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if (path := alias.name.split("."))[0] == "textdiffusion":
                    yield _module(path[1:], modules)


def _module(path: list[str], modules: dict[str, Path]) -> str:
    """The module that a dotted path names: itself, a package's `__init__`, or the module that defines its last name."""
    for names in (path, path[:-1]):
        for name in (".".join(names), ".".join([*names, "__init__"])):
            if name in modules:
                return name
    raise AssertionError(f"{'.'.join(path)} is imported and does not exist")


def graph() -> dict[str, set[str]]:
    """What every module imports."""
    modules = files()
    return {module: {*imports(module, modules)} - {module} for module in modules}


def violations() -> list[str]:
    """Every import that does not lead to the importing package or to a layer below."""
    wrong = []
    for module, targets in graph().items():
        for target in sorted(targets):
            here, there = module.split(".")[0], target.split(".")[0]
            if here != there and LEVEL.get(there, -1) <= LEVEL.get(here, len(LEVEL)):
                wrong.append(f"{module} imports {target}")
    return wrong


def floors() -> int:
    """The number of packages in the longest chain of imports."""
    packages: dict[str, set[str]] = {}
    for module, targets in graph().items():
        below = packages.setdefault(module.split(".")[0], set())
        below |= {target.split(".")[0] for target in targets} - {module.split(".")[0]}
    height: dict[str, int] = {}
    for package in TopologicalSorter(packages).static_order():
        height[package] = 1 + max((height[below] for below in packages[package]), default=0)
    return max(height.values())


def test_every_package_has_a_layer():
    assert {module.split(".")[0] for module in files()} <= set(LEVEL)


def test_imports_lead_to_the_layers_below():
    assert violations() == []


def test_no_files_import_in_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_there_are_at_most_ten_floors():
    assert floors() <= MAX_FLOORS


def test_settings_are_beside_what_they_set():
    """There is no second tree of settings: no folder `parts`, and `core.registry.build` builds every module."""
    assert not (SRC / "parts").exists()
    import_parts()
    assert [part.__name__ for part in Part.choices().values() if hasattr(part, "build")] == []


if __name__ == "__main__":
    raise SystemExit("\n".join(violations()))
