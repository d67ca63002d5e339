"""What pictures in a terminal share: styles, the sign for undecided positions, the progress and the legend."""

from __future__ import annotations

from rich.console import Console
from rich.style import Style
from rich.text import Text

from .frames import Frame
from .palette import LEVELS, ON_ANY

DIM = Style(dim=True)
GIVEN = Style(underline=True)
DECIDED = [Style(color=colour) for colour in ON_ANY]


def undecided(console: Console) -> str:
    """The sign for a position without a token."""
    return "_" if console.options.ascii_only else "░"


def progress(frame: Frame, console: Console) -> Text:
    """A bar with the status of a frame."""
    full, empty = ("#", "-") if console.options.ascii_only else ("━", "─")
    size = 20 if console.width >= 72 else 8
    done = round(size * frame.index / max(1, frame.total))
    return Text.assemble((full * done, DECIDED[-1]), (empty * (size - done), DIM), f" {frame.status}")


def legend(console: Console, given: Style = GIVEN, *, new: bool = True) -> Text:
    """What the colours of cells mean; `given` is the style of given cells, `new` says whether new ones are in bold."""
    block = undecided(console)
    scale = [("#" if console.options.ascii_only else "■", style) for style in DECIDED[:: LEVELS // 5]]
    last = ["  ", ("new", Style(bold=True))] if new else []
    return Text.assemble((block, DIM), " undecided  unsure ", *scale, " sure  ", ("given", given), *last)
