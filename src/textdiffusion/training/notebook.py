"""The progress of training in a notebook."""

from __future__ import annotations

from html import escape
from importlib import import_module
from typing import Any


class NotebookBar:
    """A bar with a line of text in a cell's output, which changes in place. IPython, which runs the cell, draws it."""

    def __init__(self) -> None:
        self._module: Any = import_module("IPython.display")
        self._handle: Any = self._module.display(self._picture(0.0, ""), display_id=True)

    def update(self, progress: float, text: str) -> None:
        """Shows the progress (0 to 1) and a text."""
        self._handle.update(self._picture(progress, text))

    def _picture(self, progress: float, text: str) -> Any:
        return self._module.HTML(f'<progress value="{progress:.4f}" max="1"></progress> <code>{escape(text)}</code>')
