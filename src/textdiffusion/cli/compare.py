"""`textdiffusion compare RUN RUN ...`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .measuring import Bounding, Sweeping
from .output import note, print_json, status


@dataclass(frozen=True, kw_only=True)
class Command(Bounding, Sweeping):
    """Measure runs under one protocol and put them in one table, beside reference rows; or in a page with charts.

    What was measured before is read from the folder `measured` of each run, so the command can be stopped and repeated.
    """

    runs: Annotated[tuple[str, ...], Positional, arg(metavar="RUN")]
    """The runs' folders, or their repository ids on the hub."""
    out: str = ""
    """The page to write, one file that needs no network: report.html."""
    markdown: str = ""
    """A file for the table in Markdown (empty: it is printed)."""
    levels: int = 24
    """Noise levels at which predictions are compared (0: none)."""

    def execute(self) -> None:
        self.check()
        if self.levels < 0:
            raise UserError(f"--levels is {self.levels}; it must be a number of noise levels, or 0 for none.")
        for option, path in (("out", self.out), ("markdown", self.markdown)):
            if path and not Path(path).absolute().parent.is_dir():
                raise UserError(f"--{option} {path}: there is no folder {Path(path).absolute().parent}.")
        from ..core.files import atomic
        from ..data.prepare import default_cache
        from ..evaluation.compare import compare
        from ..evaluation.report.page import markdown, write_report

        with status("Loading ...") as say:
            found = compare(
                self.runs,
                self.plan(),
                default_cache(),
                weights=self.weights,
                device=self.device,
                dtype=self.dtype,
                log=say,
            )
        if self.json:
            print_json(asdict(found))
        elif not self.markdown:
            print(markdown(found), end="")
        if self.markdown:
            with atomic(self.markdown) as partial:
                partial.write_text(markdown(found), encoding="utf-8")
            note(f"Saved {self.markdown}.")
        if self.out:
            write_report(found, self.out)
            note(f"Saved {self.out}; open it in a browser.")
