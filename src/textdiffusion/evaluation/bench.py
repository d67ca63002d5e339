"""One run on one text: its figures, each kept as soon as it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from ..config.overrides import sampler_name
from ..core.errors import UserError
from ..data.builtin.tasks import parse_task
from ..inference.api import TextDiffusion
from ..scoring.likelihood import Likelihood, bits_per_character
from ..scoring.protocol import Fact, sha256
from ..storage.metrics_log import history
from .cache import ResultCache
from .calibration import calibrate
from .heldout import HeldOut, held_out, texts_in, training_corpus
from .ngram import Baseline, kneser_ney
from .noise_curve import log_frequencies, noise_curve
from .tasks import solved

WINDOWS = 64  # of a noise curve


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to measure on, and how finely: the options of `evaluate` and `compare`. 0 leaves `num` or `levels` out."""

    data: str = ""
    windows: int = 0
    target_error: float = 0.01
    draws: int = 0
    batch_size: int = 64
    calibrate: int = 0
    num: int = 128
    levels: int = 24
    samplers: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    temperatures: tuple[float, ...] = ()
    judge: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Curve:
    """Cross-entropy against remaining information, both in bits per character, with errors over windows.

    `ordered`: each place also sees all clean text before it (blocks and left to right), so the curve lies lower.
    """

    remaining: tuple[float, ...]
    bits: tuple[float, ...]
    errors: tuple[float, ...]
    ordered: bool


@dataclass(frozen=True)
class Answers:
    """The share of a task's questions that are answered right, its standard error, and the number of questions."""

    share: float
    error: float
    questions: int


@dataclass(frozen=True)
class Trained:
    """What training took, and its validations: CPU-seconds, bits per character, standard error."""

    steps: int
    tokens: int
    cpu_seconds: float
    validations: tuple[tuple[float, float, float | None], ...]


@dataclass(frozen=True)
class RunResults:
    """All figures of a run, under a name that no other run of its table has."""

    name: str
    recipe: str
    weights: str
    dtype: str
    parameters: int
    likelihood: Likelihood
    curve: Curve | None
    trained: Trained | None
    answers: Answers | None
    texts: tuple[GeneratedTexts, ...]
    """The first has the run's own sampler and steps at temperature 1."""


class RunEvaluator:
    """A run and a text to measure it on, with the pieces that were kept."""

    def __init__(self, model: TextDiffusion, plan: EvalOptions, cache: Path, say: Say) -> None:
        self.model, self.plan, self.cache, self.say = model, plan, cache, say
        self.text = held_out(model, cache, plan.data, plan.windows)
        self.kept = ResultCache.open_for(model, cache)
        self.task = parse_task(plan.data or model.config.text.data)

    def asked(self) -> dict[str, Fact]:
        """What must agree before anything is measured."""
        real = self.real_text
        known = "not at hand" if real is None else sha256(real[0] if isinstance(real[0], str) else "\n".join(real[0]))
        facts = {"characters": self.text.characters(), "dtype": self.model.dtype, "training": known}
        return {**self.text.about, **facts}

    def likelihood(self) -> Likelihood:
        """Bits per character."""
        plan = self.plan
        about: dict[str, Fact] = {**self.text.about, "calibration": plan.calibrate}

        def progress(number: int, share: float, error: float) -> None:
            self.say(f"bits, pass {number}, {share:.0%}" + (f", error {error:.4f}" if number > 2 else ""))

        def make() -> dict:
            model = self.model.model
            calibrated = nullcontext()
            if train:
                self.say("calibrating ...")
                fitted = calibrate(
                    model, train.train, self.model.likelihood, buckets=plan.calibrate, batch_size=plan.batch_size
                )
                calibrated = fitted.applied(model)
            with calibrated:
                found = bits_per_character(
                    model,
                    self.text,
                    self.model.likelihood,
                    seed=plan.seed,
                    target_error=plan.target_error,
                    draws=plan.draws or None,
                    batch_size=plan.batch_size,
                    about=about,
                    progress=progress,
                )
            return asdict(found)

        how = about | {"seed": plan.seed, "target": plan.target_error, "draws": plan.draws, "windows": len(self.text)}
        train = training_corpus(self.model, self.cache) if plan.calibrate else None
        if train:
            how["training"] = train.folder.name  # which changes with the text
        return Likelihood(**self.kept.get("bits", how, make))

    def curve(self) -> Curve | None:
        """Cross-entropy at every amount of remaining information."""
        if not self.plan.levels:
            return None
        text = held_out(self.model, self.cache, self.plan.data, WINDOWS)
        facts = {**text.about, "windows": len(text), "levels": self.plan.levels, "seed": self.plan.seed}
        found = self.kept.get("denoising", facts, lambda: self._curve(text))
        return Curve(*map(tuple, found), ordered=not self.model.model.process.bidirectional)

    def _curve(self, text: HeldOut) -> list[list[float]]:
        model, plan, likelihood = self.model.model, self.plan, self.model.likelihood
        if likelihood.exact:
            # Each place is a block of its own, unknown with some probability: a straight line.
            found, batch = (
                bits_per_character(model, text, likelihood, batch_size=plan.batch_size),
                text.windows(range(len(text))),
            )
            nats = -log_frequencies(batch, model.codec.vocab_size)[batch.tokens[batch.target_mask]].sum()
            return [
                [0.0, float(nats) / math.log(2) / found.characters],
                [0.0, found.bits],
                [0.0, found.window_error or 0.0],
            ]
        curve = noise_curve(
            model,
            text,
            levels=plan.levels,
            seed=plan.seed,
            progress=lambda share: self.say(f"noise levels, {share:.0%}"),
        )
        return [curve.remaining.tolist(), curve.bits.tolist(), np.nan_to_num(curve.errors).tolist()]

    def answers(self) -> Answers | None:
        """Solved questions, where the text is a task."""
        if self.task is None:
            return None
        self.say("answering ...")
        facts = {**self.text.about, "windows": len(self.text), "seed": self.plan.seed}

        def make() -> list:
            found = solved(self.model, self.cache, self.plan.data, self.plan.windows, seed=self.plan.seed)
            return [found.share, found.error, len(found.rows)]

        return Answers(*self.kept.get("answers", facts, make))

    def texts(self) -> tuple[GeneratedTexts, ...]:
        """Texts under every setting of the plan; none of runs that write to a question, a source or a label."""
        plan, text = self.plan, self.model.config.text
        if not plan.num or self.task or text.source or text.label:
            return ()
        chosen = settings(self.model, plan.samplers, plan.steps, plan.temperatures)
        return tuple(written(self.model, self.kept, s, plan.num, seed=plan.seed, say=self.say) for s in chosen)

    @cached_property
    def real_text(self) -> RealText | None:
        """Training and held-out text to judge samples by; None where the first is not at hand."""
        try:
            return references(self.model, self.text, self.cache)
        except UserError:
            return None

    def baseline(self) -> Baseline | None:
        """The n-gram of the training text, where that is at hand."""
        self.say("counting n-grams ...")
        try:
            train = training_corpus(self.model, self.cache).train.shard
        except UserError:
            return None
        return kneser_ney(train, self.text, self.model.tokenizer.vocab_size)

    def measured(self, name: str) -> RunResults:
        """Everything."""
        return RunResults(
            name,
            self.model.config.recipe,
            self.model.weights,
            self.model.dtype,
            sum(p.numel() for p in self.model.model.parameters()),
            self.likelihood(),
            self.curve(),
            training_of(self.model.folder),
            self.answers(),
            self.texts(),
        )


def training_of(folder: Path | None) -> Trained | None:
    """What `metrics.jsonl` of a run says; None where there is none."""
    found = history(folder)
    logged = [data for data in found if data.get("event") == "logged"]
    if not logged:
        return None
    validations = tuple(
        (data["cpu_seconds"], data["bits"], data["error"])
        for data in found
        if data.get("event") == "validated" and data["bits"] is not None
    )
    return Trained(logged[-1]["step"], logged[-1]["tokens"], logged[-1]["cpu_seconds"], validations)


MOST = 5_000_000  # tokens of a text that samples are compared with


Say = Callable[[str], None]


RealText = tuple[str | list[str], str | list[str]]
"""Training and held-out text: running text, or lists of examples."""


@dataclass(frozen=True)
class Setting:
    """How text is written."""

    sampler: str
    steps: int
    temperature: float

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps, T = {self.temperature:g}"


@dataclass(frozen=True)
class GeneratedTexts:
    """Texts of a run, with the network calls that each took and the precision of the network's features."""

    setting: Setting
    texts: tuple[str, ...]
    nfe: float
    dtype: str


def settings(
    model: TextDiffusion, samplers: Sequence[str] = (), steps: Sequence[int] = (), temperatures: Sequence[float] = ()
) -> list[Setting]:
    """All combinations, the run's own sampler and steps at temperature 1 first.

    `samplers` are names, with settings as in ddim:eta=1 (none: the run's own). Numbers of steps that a sampler
    cannot make (left to right takes one a token) are left out; where that leaves none, it makes its own number. Raises
    UserError for samplers that cannot drive the run.
    """
    own = sampler_name(model.config.sampler)
    found = [Setting(own, _made(model, own, None), 1.0)]
    for name in samplers or [own]:
        usual = _made(model, name, None)
        counts = [count for count in steps if _takes(model, name, count)] or [usual]
        found += [Setting(name, *pair) for pair in product(counts, temperatures or [1.0])]
    return list(dict.fromkeys(found))


def _made(model: TextDiffusion, sampler: str, steps: int | None) -> int:
    """How many steps a sampler makes; the first one asks no network."""
    return next(model.stream(1, steps=steps, sampler=sampler)).total


def _takes(model: TextDiffusion, sampler: str, steps: int) -> bool:
    try:
        return bool(_made(model, sampler, steps))
    except UserError:
        return False


def written(
    model: TextDiffusion, kept: ResultCache, setting: Setting, num: int, *, seed: int = 0, say: Say
) -> GeneratedTexts:
    """`num` texts under a setting, from what was kept if it was written before."""

    def make() -> dict:
        texts: list[str] = []
        calls = 0.0
        batch = model.empty_batch(num)
        for part in model.chunks(batch):
            last = None
            for last in model.stream(
                steps=setting.steps,
                seed=seed,
                temperature=setting.temperature,
                sampler=setting.sampler,
                batch=part,
            ):
                say(f"{setting}: {len(texts)} of {num} texts, step {last.index} of {last.total}")
            assert last is not None
            texts += model.decode(last, part)
            calls += last.nfe * len(part.tokens) / num
        return {"texts": texts, "calls": calls}

    facts = {**asdict(setting), "num": num, "length": model.config.text.length, "seed": seed, "dtype": model.dtype}
    found = kept.get("texts", facts, make)
    return GeneratedTexts(setting, tuple(found["texts"]), found["calls"], model.dtype)


def references(model: TextDiffusion, text: HeldOut, cache: Path) -> RealText:
    """The run's training text and the held-out one, as `sample_report` takes them.

    Raises UserError where the training text is not at hand.
    """
    shards = training_corpus(model, cache).train.shard, text.dataset.shard
    parts = [texts_in(shard.tokens[:MOST], model.tokenizer) for shard in shards]
    if model.config.text.layout == "stream":
        return "\n".join(parts[0]), "\n".join(parts[1])
    return parts[0], parts[1]
