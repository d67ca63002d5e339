"""Text diffusion models: train, sample, control, measure and watch them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import recipes
    from .core.errors import UserError as UserError
    from .inference.api import TextDiffusion as TextDiffusion
    from .training.run import train as train

__version__ = "0.2.0"

# Imported at first use, so that the command line starts without torch.
_MODULES = {"TextDiffusion": "inference.api", "train": "training.run", "UserError": "core.errors"}

__all__ = ["TextDiffusion", "UserError", "__version__", "recipes", "train"]


def __getattr__(name: str) -> Any:
    if name == "recipes":
        return import_module(".recipes", __name__)
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
