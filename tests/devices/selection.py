"""Which recipes the quick tests run."""

from typing import Any

import pytest

from textdiffusion import recipes


def slow_except(*quick: str) -> list[Any]:
    """Every recipe as a parameter of a test, marked slow unless it is one of `quick`."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in recipes.names()]
