"""The studio of a run from Python: a server in a process of its own, and the page in a notebook."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import weakref
from html import escape
from pathlib import Path

from ..core.errors import UserError
from .run import Run

HEIGHT = 900  # pixels of the page in a notebook


class Studio:
    """A running studio; a notebook shows its page as the value of a cell.

    It ends with `stop`, with the Python process, or when nothing refers to it any more. `url` is its address, which
    only this machine can reach.
    """

    def __init__(self, run: Run) -> None:
        """Starts the server. Raises UserError where it cannot start, for example without the extra `serve`."""
        self._folder = None if run.folder else tempfile.TemporaryDirectory(prefix="textdiffusion-")
        if self._folder is not None:
            run.save_pretrained(Path(self._folder.name) / "run")
        folder = run.folder or Path(str(self._folder and self._folder.name)) / "run"
        command = [sys.executable, "-m", "textdiffusion", "studio", str(folder), "--no-browser"]
        with tempfile.TemporaryFile("w+") as errors:  # a pipe that nobody reads would fill
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            assert process.stdout is not None
            address = re.search(r"http://\S+(?=;)", process.stdout.readline())
            if address is None:
                _end(process)
                errors.seek(0)
                told = errors.read().strip().splitlines()
                raise UserError(told[-1].removeprefix("textdiffusion: ") if told else "The studio did not start.")
        self.url = address[0]
        self._stop = weakref.finalize(self, _end, process)

    def stop(self) -> None:
        """Ends the server."""
        self._stop()

    def __repr__(self) -> str:
        return f"Studio at {self.url}" if self._stop.alive else "Studio (stopped)"

    def _repr_html_(self) -> str:
        """The page in a frame, with a link to it."""
        if not self._stop.alive:
            return "<p>This studio has been stopped.</p>"
        url = escape(self.url, quote=True)
        return (
            f'<p><a href="{url}" target="_blank" rel="noopener">Open the studio</a></p>'
            f'<iframe title="textdiffusion studio" src="{url}" '
            f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
