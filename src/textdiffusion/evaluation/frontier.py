"""Texts of runs under several samplers, numbers of steps and temperatures, and what the metrics say about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from ..config import overrides
from ..core.errors import UserError
from ..inference.api import TextDiffusion
from ..objectives import NextTokenLikelihood
from ..samplers.autoregressive import Autoregressive
from ..samplers.order_likelihood import OrderLikelihood
from ..samplers.unmasking import Unmasking
from ..scoring.likelihood import LikelihoodEstimate
from ..scoring.protocol import sha256
from .cache import ResultCache
from .heldout import RealText
from .perplexity import load_judge
from .sample_report import MetricRow, Report, sample_report

Log = Callable[[str], None]


@dataclass(frozen=True)
class SamplerSetting:
    """A sampler with its number of steps and the temperature."""

    sampler: str
    steps: int
    temperature: float

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps, T = {self.temperature:g}"


@dataclass(frozen=True)
class GeneratedTexts:
    """Texts of a run, with the network calls per text and the precision of the network's features."""

    setting: SamplerSetting
    texts: tuple[str, ...]
    nfe: float
    dtype: str
    likelihood: LikelihoodEstimate | None = None
    """Of held-out text, exact for what the setting draws (None: not measured, or there is none)."""


@dataclass(frozen=True)
class FrontierPoint:
    """The metrics of a run's texts under a setting; without a setting, those of real text or of a baseline."""

    run: str
    setting: SamplerSetting | None
    nfe: float | None
    values: dict[str, float | None]
    likelihood: LikelihoodEstimate | None = None


def sampler_settings(
    model: TextDiffusion, samplers: Sequence[str] = (), steps: Sequence[int] = (), temperatures: Sequence[float] = ()
) -> list[SamplerSetting]:
    """All combinations, after the run's own sampler and number of steps at temperature 1.

    `samplers` are names, with settings as in ddim:eta=1 (none: the run's own). A number of steps that a sampler cannot
    take is left out (autoregressive sampling takes one per token); where none remains, the sampler's own number is
    used. Raises UserError for samplers that do not work with the run.
    """
    default = model.config.sampler.kind
    settings = [SamplerSetting(default, _num_steps(model, default), 1.0)]
    for name in samplers or [default]:
        own_steps = _num_steps(model, name)
        possible = [count for count in steps if _can_take(model, name, count)] or [own_steps]
        settings += [SamplerSetting(name, *pair) for pair in product(possible, temperatures or [1.0])]
    return list(dict.fromkeys(settings))


def _num_steps(model: TextDiffusion, sampler: str, steps: int | None = None) -> int:
    """The number of steps a sampler takes, read off its first step, which does not call the network."""
    return next(model.stream(1, steps=steps, sampler=sampler)).total


def _can_take(model: TextDiffusion, sampler: str, steps: int) -> bool:
    try:
        return bool(_num_steps(model, sampler, steps))
    except UserError:
        return False


NO_LIKELIHOOD = (
    "Only unmasking in a deterministic order with equal steps, and autoregressive sampling, have an exact likelihood, "
    "both at temperature 1."
)


def exact_likelihood(model: TextDiffusion, setting: SamplerSetting) -> OrderLikelihood | NextTokenLikelihood | None:
    """The likelihood of what a setting draws, or None (see `NO_LIKELIHOOD`).

    Of windows shorter than the run's length, it reveals as many positions in a step.
    """
    sampler = overrides.sampler(setting.sampler, model.config.sampler)
    if setting.temperature != 1.0 or sampler.top_p != 1.0:
        return None
    if isinstance(sampler, Autoregressive):
        return NextTokenLikelihood()
    if isinstance(sampler, Unmasking):
        return OrderLikelihood.of_sampler(sampler, model.config.text.length, setting.steps)
    return None


def generate_texts(
    model: TextDiffusion, results: ResultCache, setting: SamplerSetting, num: int, seed: int, log: Log
) -> GeneratedTexts:
    """`num` texts under a setting, from the cache if they were generated before."""

    def generate() -> dict:
        texts: list[str] = []
        nfe = 0.0
        for chunk in model.chunks(model.empty_batch(num)):
            step = None
            for step in model.stream(**asdict(setting), seed=seed, batch=chunk):
                log(f"{setting}: {len(texts)} of {num} texts, step {step.index} of {step.total}")
            assert step is not None
            texts += model.decode(step, chunk)
            nfe += step.nfe * len(chunk.tokens) / num
        return {"texts": texts, "nfe": nfe}

    facts = {**asdict(setting), "num": num, "length": model.config.text.length, "seed": seed, "dtype": model.dtype}
    result = results.get_or_compute("texts", facts, generate)
    return GeneratedTexts(setting, tuple(result["texts"]), result["nfe"], model.dtype)


def judge_texts(
    runs: Mapping[str, Sequence[GeneratedTexts]],
    real: RealText | None,
    cache_dir: Path,
    *,
    judge: str = "",
    seed: int = 0,
) -> tuple[Report, tuple[FrontierPoint, ...]]:
    """The report of the first texts of each run, by name, and the points of all texts of all runs.

    Raises UserError where there is too little real text to compare with.
    """
    if real is None:
        raise UserError("the training text is not available, so there is nothing to compare texts with.")
    generated = {f"{name}: {each.setting}": (name, each) for name, listed in runs.items() for each in listed}
    texts = {label: each.texts for label, (_, each) in generated.items()}

    def compute() -> dict:
        return asdict(sample_report(texts, *real, judge=load_judge(judge) if judge else None, seed=seed))

    facts = {"rows": sha256(json.dumps(texts)), "real": sha256(json.dumps(real)), "seed": seed}
    # The model behind the name of a judge may change, so its results are not stored.
    cache = ResultCache(cache_dir / "measured", "report")
    result = compute() if judge else cache.get_or_compute("report", facts, compute)
    for row in result["rows"]:
        row["beaten_by"] = {name: tuple(names) for name, names in row["beaten_by"].items()}
    report = Report(tuple(MetricRow(**row) for row in result["rows"]), result["protocol"])
    points = []
    for label in report.text_sets:
        name, each = generated.get(label, (label, None))
        values = {row.name: row.values[label] for row in report.rows}
        known = (each.setting, each.nfe) if each else (None, None)
        points.append(FrontierPoint(name, *known, values, each.likelihood if each else None))
    names = {f"{name}: {listed[0].setting}": name for name, listed in runs.items()}
    shown = [label for label in report.text_sets if label in names or label not in generated]
    return report.select({label: names.get(label, label) for label in shown}), tuple(points)
