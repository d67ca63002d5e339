"""All measurements of one run on one text, each stored as soon as it is made."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config.compatibility import sampler_problem
from ..core.errors import UserError
from ..core.randomness import check_seed
from ..data.builtin.tasks import parse_task
from ..diffusion.dual import DualProcess
from ..inference.api import TextDiffusion
from ..objectives import MaskedLikelihood
from ..samplers.masked_view import adapt_model
from ..samplers.order_likelihood import OrderLikelihood
from ..scoring.likelihood import HasProtocol, LikelihoodEstimate, bits_per_character
from ..scoring.protocol import Fact, sha256
from .cache import ResultCache
from .calibration import calibrate
from .frontier import GeneratedTexts, Log, SamplerSetting, exact_likelihood, generate_texts, sampler_settings
from .heldout import HeldOut, RealText, held_out, reference_texts, training_corpus
from .ngram import Baseline, kneser_ney
from .noise_curve import log_frequencies, noise_curve
from .tasks import solve_task
from .training_log import TrainingLog, read_training_log

CURVE_WINDOWS = 64


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to measure, and how precisely: the options of `evaluate` and `compare`.

    `num`, `levels` or `order_windows` 0 skips that. `order_windows` is the number of windows on which the exact
    likelihood of what each sampler setting draws is measured.
    """

    data: str = ""
    windows: int = 0
    target_error: float = 0.01
    draws: int = 0
    batch_size: int = 64
    calibrate: int = 0
    order: str = ""
    per_step: int = 1
    order_windows: int = 0
    num: int = 128
    levels: int = 24
    samplers: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    temperatures: tuple[float, ...] = ()
    judge: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.order and self.order != "random":
            OrderLikelihood(order=self.order, per_step=self.per_step)  # raises UserError


@dataclass(frozen=True)
class InformationCurve:
    """Cross-entropy against remaining information, both in bits per character, with standard errors over windows.

    `sees_clean_prefix`: each position also sees the clean text before it (blocks, autoregressive), which lowers the
    curve.
    """

    remaining: tuple[float, ...]
    bits: tuple[float, ...]
    errors: tuple[float, ...]
    sees_clean_prefix: bool


@dataclass(frozen=True)
class TaskScore:
    """The fraction of a task's questions answered correctly, its standard error, and the number of questions."""

    accuracy: float
    error: float
    questions: int


@dataclass(frozen=True)
class RunResults:
    """All measurements of a run. `name` is unique in a comparison."""

    name: str
    recipe: str
    weights: str
    dtype: str
    parameters: int
    likelihood: LikelihoodEstimate
    curve: InformationCurve | None
    training: TrainingLog | None
    task_score: TaskScore | None
    texts: tuple[GeneratedTexts, ...]
    """The first were generated with the run's own sampler and number of steps at temperature 1."""
    in_order: LikelihoodEstimate | None = None
    """Of the order that the options name (None: none, or the run cannot reveal text in an order)."""


class RunEvaluator:
    """Measures a run on a text; what was measured before is read from the cache."""

    def __init__(self, model: TextDiffusion, options: EvalOptions, cache_dir: Path, log: Log) -> None:
        self.model, self.options, self.cache_dir, self.log = model, options, cache_dir, log
        self.heldout = held_out(model, cache_dir, options.data, options.windows)
        self.results = ResultCache.of_run(model, cache_dir)
        self.task = parse_task(options.data or model.config.text.data)

    def protocol(self) -> dict[str, Fact]:
        """The facts that runs must share to be compared, known before anything is measured."""
        if self.real_text is None:
            train_hash = "not available"
        else:
            train = self.real_text.train
            train_hash = sha256(train if isinstance(train, str) else "\n".join(train))
        facts = {"characters": self.heldout.characters(), "dtype": self.model.dtype, "training": train_hash}
        return {**self.heldout.metadata, **facts}

    def likelihood(self) -> LikelihoodEstimate:
        """Bits per character: the bound, or the exact value of a run that has one."""
        return self._bits(self.model.likelihood, self.heldout, self.options.calibrate)

    def in_order(self) -> LikelihoodEstimate | None:
        """Bits per character of the order that the options name; None without one.

        Raises UserError where the run cannot reveal text in an order.
        """
        options = self.options
        if not options.order:
            return None
        return self._bits(self.model.order_likelihood(options.order, options.per_step), self.heldout, options.calibrate)

    def masked_bound(self) -> LikelihoodEstimate | None:
        """The masked bound of a run that also has an exact likelihood from left to right, its `likelihood`."""
        has_both = isinstance(self.model.model.process, DualProcess) and not self.options.order
        return self._bits(MaskedLikelihood(), self.heldout, self.options.calibrate) if has_both else None

    def setting_likelihood(self, setting: SamplerSetting) -> LikelihoodEstimate | None:
        """Bits per character, exact for what a setting draws, on `order_windows` windows; None where there is none."""
        options = self.options
        likelihood = exact_likelihood(self.model, setting) if options.order_windows else None
        if likelihood is None:
            return None
        self.log(f"{setting}: exact likelihood")
        return self._bits(likelihood, held_out(self.model, self.cache_dir, options.data, options.order_windows))

    def _bits(self, likelihood: Any, heldout: HeldOut, calibrate_ranges: int = 0) -> LikelihoodEstimate:
        options = self.options
        metadata: dict[str, Fact] = {**heldout.metadata, "calibration": calibrate_ranges}
        facts = metadata | {"seed": options.seed, "target": options.target_error, "draws": options.draws}
        facts |= {"windows": len(heldout), "likelihood": type(likelihood).__name__}
        facts |= likelihood.protocol if isinstance(likelihood, HasProtocol) else {}
        train = training_corpus(self.model, self.cache_dir) if calibrate_ranges else None
        if train:
            facts["training"] = train.folder.name  # changes with the text

        def report_progress(number: int, fraction: float, error: float) -> None:
            self.log(f"bits, pass {number}, {fraction:.0%}" + (f", error {error:.4f}" if number > 2 else ""))

        def compute() -> dict:
            model, size = self.model.model, options.batch_size
            context = nullcontext()
            if train:
                self.log("calibrating ...")
                calibration = calibrate(
                    model, train.train, self.model.likelihood, buckets=calibrate_ranges, batch_size=size
                )
                context = calibration.apply(model)
            with context:
                estimate = bits_per_character(
                    adapt_model(likelihood, model, options.seed),
                    heldout,
                    likelihood,
                    seed=options.seed,
                    target_error=options.target_error,
                    draws=options.draws or None,
                    batch_size=size,
                    metadata=metadata,
                    progress=report_progress,
                )
            return asdict(estimate)

        return LikelihoodEstimate(**self.results.get_or_compute("bits", facts, compute))

    def curve(self) -> InformationCurve | None:
        """Cross-entropy at every amount of remaining information."""
        options = self.options
        if not options.levels:
            return None
        text = held_out(self.model, self.cache_dir, options.data, CURVE_WINDOWS)
        facts = {**text.metadata, "windows": len(text), "levels": options.levels, "seed": options.seed}
        columns = self.results.get_or_compute("denoising", facts, lambda: self._curve(text))
        return InformationCurve(*map(tuple, columns), sees_clean_prefix=not self.model.model.process.bidirectional)

    def _curve(self, text: HeldOut) -> list[list[float]]:
        model, options, likelihood = self.model.model, self.options, self.model.likelihood
        if likelihood.exact:
            # Each position is a block of its own, unknown with some probability: a straight line.
            exact = bits_per_character(model, text, likelihood, batch_size=options.batch_size)
            batch = text.windows(range(len(text)))
            nats = -log_frequencies(batch, model.codec.vocab_size)[batch.tokens[batch.target_mask]].sum()
            unigram_bits = float(nats) / math.log(2) / exact.characters
            return [[0.0, unigram_bits], [0.0, exact.bits], [0.0, exact.window_error or 0.0]]

        def report_progress(fraction: float) -> None:
            self.log(f"noise levels, {fraction:.0%}")

        curve = noise_curve(model, text, levels=options.levels, seed=options.seed, progress=report_progress)
        return [curve.remaining.tolist(), curve.bits.tolist(), np.nan_to_num(curve.errors).tolist()]

    def task_score(self) -> TaskScore | None:
        """The accuracy on the questions, where the text is a task."""
        if self.task is None:
            return None
        options = self.options
        self.log("answering ...")
        facts = {**self.heldout.metadata, "windows": len(self.heldout), "seed": options.seed}

        def compute() -> dict:
            result = solve_task(self.model, self.cache_dir, options.data, options.windows, seed=options.seed)
            return asdict(TaskScore(result.accuracy, result.error, len(result.answers)))

        return TaskScore(**self.results.get_or_compute("answers", facts, compute))

    def texts(self) -> tuple[GeneratedTexts, ...]:
        """Texts under every setting of the options; none for runs that need a question, a prompt or a label."""
        options, text = self.options, self.model.config.text
        if not options.num or self.task or text.has_prompts or text.label:
            return ()
        model, num, seed = self.model, options.num, options.seed
        settings = sampler_settings(model, options.samplers, options.steps, options.temperatures)
        written = (generate_texts(model, self.results, setting, num, seed, self.log) for setting in settings)
        return tuple(replace(each, likelihood=self.setting_likelihood(each.setting)) for each in written)

    @cached_property
    def real_text(self) -> RealText | None:
        """Training and held-out text to compare samples with; None where the training text is not available."""
        try:
            return reference_texts(self.model, self.heldout, self.cache_dir)
        except UserError:
            return None

    def ngram_baseline(self) -> Baseline | None:
        """Bits per character of an n-gram of the training text, where that is available."""
        self.log("counting n-grams ...")
        try:
            train = training_corpus(self.model, self.cache_dir).train.shard
        except UserError:
            return None
        return kneser_ney(train, self.heldout, self.model.tokenizer.vocab_size)

    def evaluate(self, name: str) -> RunResults:
        """All measurements; the exact likelihood of an order only of runs that can reveal text in one."""
        can_order = not sampler_problem(OrderLikelihood(), self.model.config, self.model.model.process)
        in_order = self.in_order() if can_order else None
        return RunResults(
            name,
            self.model.config.recipe,
            self.model.weights,
            self.model.dtype,
            sum(p.numel() for p in self.model.model.parameters()),
            self.likelihood(),
            self.curve(),
            read_training_log(self.model.folder),
            self.task_score(),
            self.texts(),
            in_order,
        )
