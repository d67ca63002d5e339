"""A recorded run of sampling, which shows itself in a notebook and saves itself as a page or an animation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from .frames import Frame
from .gif import write_gif
from .html import page, write_html

HEIGHT, PER_ROW, MAX_HEIGHT = 280, 90, 720  # pixels of the frame in a notebook


@dataclass(frozen=True, repr=False)
class Recording:
    """The frames from noise to text, and the finished texts.

    A notebook plays the frames as the value of a cell; `save_html` and `save_gif` write them.
    """

    frames: tuple[Frame, ...]
    texts: tuple[str, ...]
    title: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def save_html(self, path: str | Path) -> Path:
        """Writes a page that plays the frames, and returns its path. Raises UserError if it cannot be written."""
        write_html(self.frames, path, self.title, self.facts)
        return Path(path)

    def save_gif(self, path: str | Path) -> Path:
        """Writes an animation, and returns its path. Raises UserError without pillow, or if it cannot be written."""
        write_gif(self.frames, path)
        return Path(path)

    def __repr__(self) -> str:
        """The texts, one after the other."""
        return "\n\n".join(self.texts)

    def _repr_html_(self) -> str:
        """The player, in a frame of its own, so that its styles and scripts stay apart from the notebook's."""
        height = min(MAX_HEIGHT, HEIGHT + PER_ROW * len(self.texts))
        source = escape(page(self.frames, self.title, self.facts), quote=True)
        return (
            f'<iframe title="{escape(self.title, quote=True)}" sandbox="allow-scripts" srcdoc="{source}" '
            f'style="width: 100%; height: {height}px; border: 0"></iframe>'
        )
