"""Recipes: one file per paper, with one function that puts the parts of a model together.

A recipe takes no arguments and returns its configurations by variant; the decorator `recipe` fills in their names. A
new file with such a function is a new recipe. Numbers in the docstrings come from docs/experiments.md.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property

from ..config.config import Config
from ..core.errors import UserError

FIRST = "mdlm"
"""The recipe to begin with."""

Variants = dict[str, Config]
"""Configurations by variant: `default`, `as_published` and others."""


class Recipe:
    """The configurations of one paper. Its docstring describes it; the first line is the idea."""

    def __init__(self, function: Callable[[], Variants]) -> None:
        self.name, self.__doc__ = function.__name__, inspect.getdoc(function)
        self._function = function

    @cached_property
    def configs(self) -> Variants:
        """The configuration of every variant."""
        return {
            variant: replace(config, recipe=self.name, variant=variant) for variant, config in self._function().items()
        }

    def __call__(self, variant: str = "default") -> Config:
        """The configuration of a variant. Raises UserError for an unknown one."""
        if variant not in self.configs:
            raise UserError(f"{self.name} has no variant {variant!r}; it has {', '.join(self.configs)}.")
        return self.configs[variant]


def recipe(function: Callable[[], Variants]) -> Recipe:
    """Decorator: the function becomes a recipe of the same name."""
    return Recipe(function)


def names() -> list[str]:
    """All recipes, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "common")


def get(name: str) -> Recipe:
    """The recipe in the file of that name. Raises UserError for an unknown one."""
    name = name.replace("-", "_")
    if name not in names():
        close = get_close_matches(name, names(), 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names())}."
        raise UserError(f"There is no recipe {name!r}; {hint}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)


def variants(name: str) -> list[str]:
    """The variants of a recipe."""
    return list(get(name).configs)


def description(name: str) -> str:
    """The docstring of a recipe; its first line is the idea."""
    return get(name).__doc__ or ""
