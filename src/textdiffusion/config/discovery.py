"""Finding parts: a part is registered when its module is imported, so every module that may define one is imported."""

from __future__ import annotations

import pkgutil
from importlib import import_module

PACKAGES = ("diffusion", "networks", "objectives", "samplers", "guidance")
"""Packages whose modules define parts: a new sampler, schedule, objective or guide is a new file in one of them."""


def import_parts() -> None:
    """Imports every module of the packages above, so that `Part.choices()` lists each part of each."""
    root = __name__.rpartition(".config.")[0]
    for package in PACKAGES:
        module = import_module(f"{root}.{package}")
        for file in pkgutil.iter_modules(module.__path__):
            import_module(f"{root}.{package}.{file.name}")
