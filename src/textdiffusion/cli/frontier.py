"""`textdiffusion frontier RUN`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.errors import UserError
from .measuring import Sweeping
from .output import note, print_json, print_table, status
from .parsing import RunName

UNIT = " (characters)"
SHOWN = (
    f"forward bits{UNIT}",
    f"reverse bits{UNIT}",
    "pooled entropy",
    "distinct-2",
    "repetition",
    "MAUVE (own features)",
)


@dataclass(frozen=True, kw_only=True)
class Command(Sweeping):
    """Show what samplers, steps and temperatures do to a run's texts: quality and variety beside real text.

    No column is a verdict: low forward bits are quality only where the entropy is that of the held-out text.
    """

    run: RunName
    """The run's folder, or its repository id on the hub."""
    out: str = ""
    """Save a picture too: .svg."""

    def execute(self) -> None:
        self.check()
        if self.num < 2:
            raise UserError("--num must be at least 2: there is nothing to judge without texts.")
        if self.out and not self.out.endswith(".svg"):
            raise UserError(f"--out {self.out}: the picture is an .svg.")
        from ..data.prepare import default_cache
        from ..evaluation.bench import RunEvaluator
        from ..evaluation.frontier import judge_texts
        from ..evaluation.report.page import write_frontier
        from ..inference.api import TextDiffusion

        model = TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device, dtype=self.dtype)
        name = Path(self.run).name
        with status("Writing ...") as say:
            evaluator = RunEvaluator(model, self.plan(), default_cache(), say)
            texts = evaluator.texts()
            if not texts:
                raise UserError(
                    f"{self.run} writes to a question, source or label: it has no texts of its own to judge."
                )
            say("Judging ...")
            report, points = judge_texts(
                {name: texts}, evaluator.real_text, default_cache(), judge=self.judge, seed=self.seed
            )
        if self.json:
            print_json(
                {
                    "run": self.run,
                    "recipe": model.config.recipe,
                    "protocol": report.protocol,
                    "dtype": texts[0].dtype,
                    "points": [asdict(point) for point in points],
                }
            )
        else:
            rows = []
            for point in points:
                how = [point.run, "", "", ""]
                if (setting := point.setting) and point.nfe is not None:
                    how = [setting.sampler, str(setting.steps), f"{setting.temperature:g}", f"{point.nfe:g}"]
                values = [point.values[metric] for metric in SHOWN]
                rows.append(how + ["-" if value is None else f"{value:.4g}" for value in values])
            print_table(["sampler", "steps", "T", "calls", *(name.removesuffix(UNIT) for name in SHOWN)], rows)
            print(
                "Near the held-out text is good, and a run that is nearer than the naive rows is better than they are."
            )
            print(f"Protocol: {', '.join(f'{key} {value}' for key, value in report.protocol.items())}.")
        if self.out:
            write_frontier(name, points, self.out)
            note(f"Saved {self.out}.")
