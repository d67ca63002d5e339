"""`textdiffusion studio RUN`"""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .output import print_line


@dataclass(frozen=True, kw_only=True)
class Studio:
    """Open runs in the browser: fill gaps and watch, write single tokens again, revise, compare.

    The page is served on this machine only, until Ctrl-C; nothing is sent anywhere else. `serve` shows it to others.
    """

    run: Annotated[tuple[str, ...], Positional, arg(metavar="RUN [RUN ...]")] = ("restaurants",)
    """Run folders, names from `textdiffusion models`, or repository ids on the hub."""
    port: int = 0
    """Listen on this port (0: any that is free)."""
    no_browser: bool = False
    """Only print the address."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""

    def execute(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; it must be from 0 to 65535.")
        from ..serve.server import serve

        serve(self.run, port=self.port, device=self.device, quiet=True, started=self._show)

    def _show(self, address: str) -> None:
        print_line(f"The studio is at {address}; Ctrl-C ends it.")
        if not self.no_browser:
            webbrowser.open(address)
