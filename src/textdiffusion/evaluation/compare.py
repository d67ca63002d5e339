"""Many runs in one table, where their protocols allow it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..core.devices import DeviceName, DtypeName
from ..core.errors import UserError
from ..inference.api import TextDiffusion
from ..inference.run import Weights
from ..scoring.protocol import Fact, check_comparable, sha256
from .bench import EvalOptions, GeneratedTexts, RealText, RunEvaluator, RunResults, Say, Setting
from .cache import ResultCache
from .ngram import Baseline
from .perplexity import judged_by
from .sample_report import MetricRow, Report, sample_report

SHOWN = 3  # texts of each run in a gallery


@dataclass(frozen=True)
class FrontierPoint:
    """The metrics of a run's texts under a setting; without a setting, those of a reference row named `run`."""

    run: str
    setting: Setting | None
    nfe: float | None
    values: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """Runs, the best bits per character first, and what they stand beside."""

    text: str
    runs: tuple[RunResults, ...]
    protocol: dict[str, Fact]
    digest: str
    ngram: Baseline | None
    report: Report | None
    unjudged: str
    """Why there is no report of texts (empty: there is one)."""
    spots: tuple[FrontierPoint, ...]
    real: tuple[str, ...]


def compare(
    sources: Sequence[str],
    plan: EvalOptions,
    cache: Path,
    *,
    weights: Weights = "ema",
    device: DeviceName = "auto",
    dtype: DtypeName = "float32",
    say: Say = lambda text: None,
) -> Comparison:
    """Measures runs; all are loaded until they are measured.

    Raises UserError before anything is measured where their protocols or training texts differ, and for runs that are
    named twice.
    """
    if len({*sources}) < len(sources):
        raise UserError("A run is named twice; name each once.")
    short = [Path(source).name for source in sources]
    names = dict(zip(sources, short if len({*short}) == len(short) else sources, strict=True))

    def bench(source: str) -> RunEvaluator:
        model = TextDiffusion.from_pretrained(source, weights=weights, device=device, dtype=dtype)
        return RunEvaluator(model, plan, cache, lambda text: say(f"{names[source]}: {text}"))

    say("Comparing protocols ...")
    benches = {names[source]: bench(source) for source in sources}
    check_comparable({name: bench.asked() for name, bench in benches.items()})
    *_, last = benches.values()
    runs = [benches.pop(name).measured(name) for name in list(benches)]
    say("Judging the texts ...")
    report, spots = None, ()
    why = "No texts were judged: none were asked for, or a run writes to a question, source or label."
    if all(run.texts for run in runs):
        try:
            report, spots = judged({run.name: run.texts for run in runs}, last.real_text, plan, cache)
            why = ""
        except UserError as error:
            why = f"The texts were not judged: {error}"
    digest = check_comparable({run.name: run.likelihood.protocol for run in runs})
    return Comparison(
        last.text.name,
        tuple(sorted(runs, key=lambda run: run.likelihood.bits)),
        runs[0].likelihood.protocol,
        digest,
        last.baseline(),
        report,
        why,
        spots,
        _some(last.real_text, runs),
    )


def judged(
    runs: Mapping[str, Sequence[GeneratedTexts]], real: RealText | None, plan: EvalOptions, cache: Path
) -> tuple[Report, tuple[FrontierPoint, ...]]:
    """One table of all texts of all runs, by name: the first of each run, and all of them as spots.

    Raises UserError where there is too little real text to judge by.
    """
    if real is None:
        raise UserError("the training text is not at hand, so there is nothing to judge texts by.")
    rows = {f"{name}: {each.setting}": (name, each) for name, written in runs.items() for each in written}
    texts = {row: each.texts for row, (_, each) in rows.items()}

    def make() -> dict:
        return asdict(sample_report(texts, *real, judge=judged_by(plan.judge) if plan.judge else None, seed=plan.seed))

    facts = {"rows": sha256(json.dumps(texts)), "real": sha256(json.dumps(real)), "seed": plan.seed}
    # What stands under the name of a judge may change, so nothing that it said is kept.
    found = make() if plan.judge else ResultCache(cache / "measured", "report").get("report", facts, make)
    lines = [
        MetricRow(**line | {"beaten": {k: tuple(v) for k, v in line["beaten"].items()}}) for line in found["lines"]
    ]
    whole = Report(tuple(lines), found["protocol"])
    spots = []
    for row in whole.lines[0].values:
        name, each = rows.get(row, (row, None))
        values = {line.name: line.values[row] for line in whole.lines}
        spots.append(FrontierPoint(name, each.setting if each else None, each.nfe if each else None, values))
    first = {f"{name}: {written[0].setting}": name for name, written in runs.items()}
    shown = {row: first.get(row, row) for row in whole.lines[0].values if row in first or row not in rows}
    return whole.named(shown), tuple(spots)


def _some(real: RealText | None, runs: Sequence[RunResults]) -> tuple[str, ...]:
    """A few pieces of the held-out text, as long as samples are."""
    if real is None:
        return ()
    if not isinstance(text := real[1], str):
        return tuple([each for each in text if each][:SHOWN])
    length = max((len(each) for run in runs for own in run.texts[:1] for each in own.texts), default=64)
    starts = np.linspace(0, max(0, len(text) - length), SHOWN + 2).astype(int)[1:-1]
    return tuple(text[start : start + length] for start in starts)
