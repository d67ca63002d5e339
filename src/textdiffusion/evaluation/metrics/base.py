"""The registry of metrics, and the two things a metric receives: the texts to measure and the real text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float

from ..ngram_scorer import words
from ..ngram_statistics import Grams
from ..perplexity import Judge

T = TypeVar("T")

Best = Literal["high", "low", "real"]
Features = Float[np.ndarray, "_ d"]
Encoder = Callable[[Sequence[str]], Features]
"""One row of numbers per text."""


class _Memo:
    def once(self, compute: Callable[..., T], *args: Hashable) -> T:
        """`compute(self, *args)`, computed once: for values that several metrics need."""
        memo = self.__dict__.setdefault("_memo", {})
        if (compute, *args) not in memo:
            memo[compute, *args] = compute(self, *args)
        return memo[compute, *args]


class TextSet(_Memo):
    """Texts to measure, with their words (without white space) and characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    @cached_property
    def words(self) -> Grams:
        return Grams.of([[word.strip() for word in words(text) if not word.isspace()] for text in self.texts])

    @cached_property
    def chars(self) -> Grams:
        return Grams.characters(self.texts)


@dataclass(frozen=True)
class ReferenceTexts(_Memo):
    """Real text: all of `train`, and texts as long as the samples: some of `train` (`train_sample`), some `unseen`.

    `split_lines` cuts a text into its complete lines. `encoder` and `judge` are what the caller of the report chose.
    """

    train: Sequence[str]
    train_sample: Sequence[str]
    unseen: Sequence[str]
    split_lines: Callable[[str], Sequence[str]]
    encoder: Encoder | None = None
    judge: Judge | None = None


MetricFn = Callable[[TextSet, ReferenceTexts], float]


@dataclass(frozen=True)
class Metric:
    """A number about texts. `best` is the value to aim for: high, low, or the value of real text.

    `value` may raise Undefined. A metric is part of a report where it `applies`.
    """

    name: str
    unit: str
    best: Best
    meaning: str
    value: MetricFn
    applies: Callable[[ReferenceTexts], bool]


_METRICS: dict[str, Metric] = {}


def metric(
    name: str, *, unit: str, best: Best, meaning: str, applies: Callable[[ReferenceTexts], bool] = lambda real: True
) -> Callable[[MetricFn], MetricFn]:
    """Registers a function of (texts, real text) as a metric of every report. Raises ValueError for a name in use."""

    def register(value: MetricFn) -> MetricFn:
        if name in _METRICS:
            raise ValueError(f"there are two metrics named {name!r}")
        _METRICS[name] = Metric(name, unit, best, meaning, value, applies)
        return value

    return register


def all_metrics() -> tuple[Metric, ...]:
    """The metrics of all files of this package, file by file in alphabetical order."""
    package = __name__.rpartition(".")[0]
    for module in sorted(module.name for module in iter_modules(import_module(package).__path__)):
        import_module(f"{package}.{module}")
    return tuple(sorted(_METRICS.values(), key=lambda metric: metric.value.__module__))
