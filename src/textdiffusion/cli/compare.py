"""`textdiffusion compare RUN RUN ...` and `textdiffusion frontier RUN`"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .measuring import Bounding, Sweeping
from .output import note, print_json, print_line, print_table, status
from .parsing import RunName, check_folders

COLUMNS = {
    "forward bits (characters)": "forward bits",
    "reverse bits (characters)": "reverse bits",
    "pooled entropy": "pooled entropy",
    "distinct-2": "distinct-2",
    "repetition": "repetition",
    "MAUVE (own features)": "MAUVE (own features)",
}
"""The metrics of the table by their names in a report, and their titles."""


@dataclass(frozen=True, kw_only=True)
class Compare(Bounding, Sweeping):
    """Measure runs under one protocol and compare them with reference rows, in one table or on a page with charts.

    Earlier results are read from the folder `measured` of each run, so the command can be stopped and repeated.
    """

    runs: Annotated[tuple[str, ...], Positional, arg(metavar="RUN")]
    """The runs' folders, or their repository ids on the hub."""
    out: str = ""
    """Save an HTML page, one file that needs no network: report.html."""
    markdown: str = ""
    """Save the table as Markdown in this file (empty = print it)."""
    levels: int = 24
    """Number of noise levels at which to compare predictions (0 = none)."""

    def execute(self) -> None:
        self.check()
        if not self.runs:
            raise UserError("RUN is missing; name at least one run.")
        if self.levels < 0:
            raise UserError(f"--levels is {self.levels}; it must be at least 1, or 0 for none.")
        check_folders(out=self.out, markdown=self.markdown)
        from ..core.files import atomic
        from ..data.prepare import default_cache
        from ..evaluation.compare import compare
        from ..evaluation.report.page import markdown, write_report

        with status("Loading ...") as show:
            comparison = compare(
                self.runs,
                self.plan(),
                default_cache(),
                weights=self.weights,
                device=self.device,
                dtype=self.dtype,
                log=show,
            )
        if self.json:
            print_json(asdict(comparison))
        elif not self.markdown:
            print_line(markdown(comparison), end="")
        if self.markdown:
            with atomic(self.markdown) as partial:
                partial.write_text(markdown(comparison), encoding="utf-8")
            note(f"Saved {self.markdown}.")
        if self.out:
            write_report(comparison, self.out)
            note(f"Saved {self.out}; open it in a browser.")


@dataclass(frozen=True, kw_only=True)
class Frontier(Sweeping):
    """Show how samplers, steps and temperatures change a run's texts: quality and variety compared with real text.

    No single column decides: low forward bits mean quality only where the entropy is that of the held-out text.
    """

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    out: str = ""
    """Also save a chart: .svg."""

    def execute(self) -> None:
        self.check()
        if self.num < 2:
            raise UserError("--num must be at least 2.")
        if self.out and not self.out.endswith(".svg"):
            raise UserError(f"--out is {self.out}; its name must end in .svg.")
        check_folders(out=self.out)
        from ..data.prepare import default_cache
        from ..evaluation.bench import RunEvaluator
        from ..evaluation.frontier import NO_LIKELIHOOD, judge_texts
        from ..evaluation.report.page import write_frontier
        from ..inference.api import TextDiffusion

        run = TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device, dtype=self.dtype)
        name = Path(self.run).name
        with status("Writing ...") as show:
            evaluator = RunEvaluator(run, self.plan(), default_cache(), show)
            texts = evaluator.texts()
            if not texts:
                raise UserError(
                    f"{self.run} writes only to a question, source or label, so it has no texts to judge alone."
                )
            show("Judging ...")
            report, points = judge_texts(
                {name: texts}, evaluator.real_text, default_cache(), judge=self.judge, seed=self.seed
            )
        if self.json:
            print_json(
                {
                    "run": self.run,
                    "recipe": run.config.recipe,
                    "protocol": report.protocol,
                    "dtype": texts[0].dtype,
                    "points": [
                        {**asdict(point), "digest": point.likelihood.digest if point.likelihood else None}
                        for point in points
                    ],
                }
            )
        else:
            exact = [point.likelihood for point in points if point.likelihood]
            rows = []
            # The settings with an exact likelihood first, the likeliest of them first.
            for point in sorted(points, key=lambda point: point.likelihood.bits if point.likelihood else math.inf):
                settings, bits = [point.run, "", "", ""], ""
                if (setting := point.setting) and point.nfe is not None:
                    settings = [setting.sampler, str(setting.steps), f"{setting.temperature:g}", f"{point.nfe:g}"]
                    bits = f"{point.likelihood.bits:.4f}" if point.likelihood else "-"
                values = [point.values[metric] for metric in COLUMNS]
                cells = ["-" if value is None else f"{value:.4g}" for value in values]
                rows.append([*settings, *([bits] if self.order_windows else []), *cells])
            exact_title = ["exact bits"] if self.order_windows else []
            print_table(["sampler", "steps", "T", "calls", *exact_title, *COLUMNS.values()], rows)
            print_line("The closer to the held-out text the better; a useful run is closer than the baseline rows.")
            if exact:
                error = max(likelihood.window_error or 0.0 for likelihood in exact)
                print_line(
                    f"Exact bits: per character of the same {exact[0].windows} windows of held-out text, of the texts "
                    f"that each setting draws; +- {error:.3f} between windows."
                )
            if self.order_windows and len(exact) < len(texts):
                print_line(f"No exact bits (-): {NO_LIKELIHOOD[0].lower()}{NO_LIKELIHOOD[1:]}")
            print_line(f"Protocol: {', '.join(f'{key} {value}' for key, value in report.protocol.items())}.")
        if self.out:
            write_frontier(name, points, self.out)
            note(f"Saved {self.out}.")
