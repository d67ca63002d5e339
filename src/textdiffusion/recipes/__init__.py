"""Recipes: one file per paper, one function that puts the parts together and returns a frozen configuration."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Protocol, runtime_checkable

from ..config.config import Config, Training
from ..core.errors import UserError
from ..parts import TransformerConfig

FIRST = "mdlm"
"""The recipe to begin with."""

# The small diffusion transformer of SEDD and the papers after it, and how they train it.
PUBLISHED_BACKBONE = TransformerConfig(
    width=768,
    depth=12,
    modulation="adaln",
    cond_dim=128,
    activation="gelu",
    qk_norm=False,
    absolute_positions=False,
    bias=True,
    norm_weight=True,
    dropout=0.1,
)
PUBLISHED_TRAINING = Training(
    steps=1_000_000,
    batch_size=512,
    lr=3e-4,
    warmup=2500,
    decay="constant",
    optimizer="adamw",
    beta2=0.999,
    ema=0.9999,
)


@runtime_checkable
class Recipe(Protocol):
    """Returns the configuration of a variant. Raises UserError at an unknown variant."""

    __doc__: str | None

    def __call__(self, variant: str = "default") -> Config: ...


def names() -> list[str]:
    """All recipes, by file name."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def get(name: str) -> Recipe:
    """The recipe of that name: the function in the file of the same name."""
    name = name.replace("-", "_")
    if name not in names():
        raise UserError(f"There is no recipe {name!r}; there are {', '.join(names())}.")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)


def description(name: str) -> str:
    """What the recipe says of itself; its idea is the first line."""
    return inspect.getdoc(get(name)) or ""


class UnknownVariant(UserError):
    """The recipe has no such variant; `variants` are those it has."""

    def __init__(self, recipe: str, variant: str, variants: list[str]) -> None:
        super().__init__(f"{recipe} has no variant {variant!r}; it has {', '.join(variants)}.")
        self.variants = variants


def variants(name: str) -> list[str]:
    """The variants of a recipe."""
    try:
        get(name)("")
    except UnknownVariant as error:
        return error.variants
    raise AssertionError(f"the recipe {name} takes any variant")


def variant_of(recipe: str, variant: str, variants: dict[str, Config]) -> Config:
    """Picks a variant by name."""
    if variant not in variants:
        raise UnknownVariant(recipe, variant, list(variants))
    return variants[variant]
