"""Several runs measured under one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.devices import DeviceName, DtypeName
from ..core.errors import UserError
from ..inference.api import TextDiffusion
from ..inference.run import Weights
from ..scoring.protocol import Fact, check_comparable
from .bench import EvalOptions, RunEvaluator, RunResults
from .frontier import FrontierPoint, Log, judge_texts
from .heldout import RealText
from .ngram import Baseline
from .sample_report import Report

GALLERY_TEXTS = 3  # of each run


@dataclass(frozen=True)
class Comparison:
    """The results of all runs, sorted by bits per character, lowest first, and what to compare them with."""

    text: str
    runs: tuple[RunResults, ...]
    protocol: dict[str, Fact]
    digest: str
    ngram: Baseline | None
    report: Report | None
    no_report_reason: str
    """Why there is no report of texts (empty: there is one)."""
    points: tuple[FrontierPoint, ...]
    real_excerpts: tuple[str, ...]
    order: str = ""
    """The order whose exact likelihood is each run's `in_order`, in words (empty: none)."""


def compare(
    sources: Sequence[str],
    options: EvalOptions,
    cache_dir: Path,
    *,
    weights: Weights = "ema",
    device: DeviceName = "auto",
    dtype: DtypeName = "float32",
    log: Log = lambda text: None,
) -> Comparison:
    """Measures runs; each stays loaded until it is measured.

    Raises UserError, before anything is measured, where the protocols or training texts of the runs differ, and where
    a run is named twice.
    """
    if not sources:
        raise UserError("There are no runs to compare; name at least one.")
    if len({*sources}) < len(sources):
        raise UserError("A run is named twice; name each once.")
    short = [Path(source).name for source in sources]
    names = dict(zip(sources, short if len({*short}) == len(short) else sources, strict=True))

    def load(source: str) -> RunEvaluator:
        model = TextDiffusion.from_pretrained(source, weights=weights, device=device, dtype=dtype)
        return RunEvaluator(model, options, cache_dir, lambda text: log(f"{names[source]}: {text}"))

    log("Comparing protocols ...")
    evaluators = {names[source]: load(source) for source in sources}
    check_comparable({name: evaluator.protocol() for name, evaluator in evaluators.items()})
    *_, last = evaluators.values()
    runs = [evaluators.pop(name).evaluate(name) for name in list(evaluators)]
    log("Measuring the texts ...")
    report, points = None, ()
    reason = "No texts were measured: --num is 0, or a run needs a question, a source or a label."
    if all(run.texts for run in runs):
        try:
            texts = {run.name: run.texts for run in runs}
            report, points = judge_texts(texts, last.real_text, cache_dir, judge=options.judge, seed=options.seed)
            reason = ""
        except UserError as error:
            reason = f"The texts were not measured: {error}"
    digest = check_comparable({run.name: run.likelihood.protocol for run in runs})
    return Comparison(
        last.heldout.name,
        tuple(sorted(runs, key=lambda run: run.likelihood.bits)),
        runs[0].likelihood.protocol,
        digest,
        last.ngram_baseline(),
        report,
        reason,
        points,
        _excerpts(last.real_text, runs),
        f"{options.order}, {options.per_step} at a time" if options.order else "",
    )


def _excerpts(real: RealText | None, runs: Sequence[RunResults]) -> tuple[str, ...]:
    """A few pieces of the held-out text, as long as the samples."""
    if real is None:
        return ()
    if not isinstance(heldout := real.heldout, str):
        return tuple([text for text in heldout if text][:GALLERY_TEXTS])
    length = max((len(text) for run in runs for generated in run.texts[:1] for text in generated.texts), default=64)
    starts = np.linspace(0, max(0, len(heldout) - length), GALLERY_TEXTS + 2).astype(int)[1:-1]
    return tuple(heldout[start : start + length] for start in starts)
