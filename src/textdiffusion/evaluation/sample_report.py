"""One table about samples: every metric beside real text and beside cheap imitations of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal

import numpy as np

from ..core.errors import UserError
from ..scoring.protocol import Fact
from . import metrics
from .features import Encoder, HashedNgrams, frechet_distance, mauve
from .metrics import Check, Copies, Grams, Undefined, checker
from .ngram import NgramScorer, Split, characters, words
from .perplexity import Judge

REAL = "held-out text"


SHUFFLED, IMITATED, COPIED = NAIVE = "shuffled words", "n-gram samples", "copied training text"


MOST = 2000  # texts that samples are compared with


@dataclass(frozen=True)
class MetricRow:
    """One metric of every row of texts. `best` is what to wish for: high, low, or the held-out text's value (`real`).

    A value is None where the metric is undefined. `beaten` has the naive rows that the metric ranks above each row of
    samples, and above real text: where there are some, it does not show by itself that samples are good.
    """

    name: str
    unit: str
    best: Literal["high", "low", "real"]
    meaning: str
    values: dict[str, float | None]
    beaten: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Report:
    """The table, and what two tables must have in common to be compared. `dataclasses.asdict` of it is JSON."""

    lines: tuple[MetricRow, ...]
    protocol: dict[str, Fact]

    def __str__(self) -> str:
        """Markdown; `!` marks values that a naive row beats, and the sentences below say which."""
        rows = [["metric", "unit", "best", *self.lines[0].values]]
        for line in self.lines:
            shown = ["-" if value is None else f"{value:.4g}" for value in line.values.values()]
            marks = ["!" if line.beaten.get(row) else "" for row in line.values]
            rows.append([line.name, line.unit, line.best, *map(str.__add__, shown, marks)])
        facts = ", ".join(f"{name} {value}" for name, value in self.protocol.items())
        return "\n".join([*piped(rows), "", f"Protocol: {facts}.", *self.warnings()])

    def named(self, rows: Mapping[str, str]) -> Report:
        """Some of the rows, each under a new name."""
        lines = [
            replace(
                line,
                values={new: line.values[old] for old, new in rows.items()},
                beaten={new: line.beaten[old] for old, new in rows.items() if old in line.beaten},
            )
            for line in self.lines
        ]
        return replace(self, lines=tuple(lines))

    def warnings(self) -> list[str]:
        """A sentence for each naive row that some metrics rank above a row of samples."""
        found: dict[tuple[str, str], list[str]] = {}
        for line in self.lines:
            for row, naive in line.beaten.items():
                for name in naive:
                    found.setdefault((name, row), []).append(line.name)
        said = []
        for (name, row), names in found.items():
            others = [line.name for line in self.lines if line.name not in names]
            where = ", ".join(names) if len(names) <= len(others) or not others else f"all but {', '.join(others)}"
            said.append(f"! {where}: {name} would beat {row}.")
        return said


def piped(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, the first of `rows` its head."""
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]


def sample_report(
    samples: Mapping[str, Sequence[str]],
    train: str | Sequence[str],
    heldout: str | Sequence[str],
    *,
    encoder: Encoder | None = None,
    judge: Judge | None = None,
    seed: int = 0,
) -> Report:
    """Measures the samples of one or more models, by name, beside the reference rows.

    `train` and `heldout` are running text, which is cut into windows as long as the samples, or lists of examples such
    as lines. Samples are compared with the first half of the held-out text; texts of its second half are the row
    `held-out text`. Many metrics depend on the number and length of texts, so all rows have as many as the smallest has
    (and, of running text, are cut to the mean length of the shortest samples). Samples that are empty are left out, and
    so are rows with fewer than two others. `encoder` turns texts into features (None: `HashedNgrams`); `judge` adds
    generative perplexity and its entropy.

    Raises UserError where no row of samples is left, and for too little held-out or training text.
    """
    running = isinstance(train, str)
    if running != isinstance(heldout, str):
        raise UserError("Training and held-out text must both be running text, or both be lists of examples.")
    if taken := {REAL, *NAIVE} & set(samples):
        raise UserError(f"{taken.pop()!r} is a row of every table: give these samples another name.")
    rows = {name: [text for text in texts if text] for name, texts in samples.items()}
    empty = {f"empty samples of {name}, left out": len(samples[name]) - len(texts) for name, texts in rows.items()}
    gone = [name for name, texts in rows.items() if len(texts) < 2]
    rows = {name: texts for name, texts in rows.items() if name not in gone}
    if not rows:
        raise UserError("There are no two samples that are not empty.")
    length = min(sum(map(len, texts)) // len(texts) for texts in rows.values()) if running else None
    trained, real = _texts(train, length), _texts(heldout, length)
    fitted, trained = trained[::2], trained[1::2]  # the encoder's texts appear in no row
    known, unseen = real[: len(real) // 2], real[len(real) // 2 :]
    count = min(len(trained), len(unseen), *map(len, rows.values()))
    if count < 2 or len(known) < 2:
        have = f"{len(real)} held-out and {len(fitted) + len(trained)} training texts"
        raise UserError(f"{have} as long as the samples are too few: give at least four of each.")
    text = ReferenceTexts(
        [train] if isinstance(train, str) else train,
        _spread(fitted, MOST // 2),
        _spread(known, MOST),
        (lambda text: text.split("\n")[1:-1]) if running else (lambda text: text.removesuffix("\n").split("\n")),
    )
    rng = np.random.default_rng(seed)
    copied = [trained[i] for i in rng.choice(len(trained), count, replace=False)]
    texts = {name: [sample[:length] for sample in found[:count]] for name, found in rows.items()} | {
        REAL: _spread(unseen, count),
        SHUFFLED: ["".join(rng.permutation(words(sample))) for sample in copied],
        IMITATED: _imitated(text.judge, copied, running, seed),
        COPIED: copied,
    }
    prepared = {name: Row(found) for name, found in texts.items()}
    lines = tuple(_line(metric, prepared, list(rows)) for metric in text.metrics(encoder, judge))
    protocol: dict[str, Fact] = {"texts": count, "compared with": len(text.unseen), "seed": seed}
    protocol |= {"training characters": sum(map(len, text.train))} | ({"length": length} if length else {})
    protocol |= {name: number for name, number in empty.items() if number}
    return Report(lines, protocol | ({"rows left out, being empty": ", ".join(gone)} if gone else {}))


def _line(metric: Metric, rows: Mapping[str, Row], samples: Sequence[str]) -> MetricRow:
    values: dict[str, float | None] = {}
    for name, row in rows.items():
        try:
            values[name] = float(metric.value(row))
        except Undefined:
            values[name] = None
    target = values[REAL]

    def loss(name: str) -> float | None:
        value = values[name]
        if value is None or (metric.best == "real" and target is None):
            return None
        return {"low": value, "high": -value, "real": abs(value - (target or 0.0))}[metric.best]

    beaten = {}
    for name in (*samples, REAL):
        own = loss(name)
        beaten[name] = tuple(n for n in NAIVE if own is not None and (naive := loss(n)) is not None and naive < own)
    return MetricRow(metric.name, metric.unit, metric.best, metric.meaning, values, beaten)


def _texts(text: str | Sequence[str], length: int | None) -> list[str]:
    if isinstance(text, str):
        assert length is not None
        return [text[i : i + length] for i in range(0, len(text) - length + 1, length)]
    return [example for example in text if example]


def _spread(texts: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly spread."""
    return [texts[i] for i in np.linspace(0, len(texts) - 1, min(most, len(texts))).round().astype(int)]


def _imitated(judge: NgramScorer, like: Sequence[str], running: bool, seed: int) -> list[str]:
    """Samples of the n-gram: of running text all that was drawn, of examples the first that is whole."""
    longest = max(map(len, like))
    if running:
        return ["".join(parts) for parts in judge.sample(len(like), longest, seed)]
    return [(parts[1:-1] or parts)[0] for parts in judge.sample(len(like), 3 * longest, seed)]


CHARACTERS, WORDS = 7, 3  # orders of the n-gram judges


class Row:
    """Texts with what several metrics need of them: their words (without white space) and their characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    @cached_property
    def words(self) -> Grams:
        return Grams.of([[word.strip() for word in words(text) if not word.isspace()] for text in self.texts])

    @cached_property
    def chars(self) -> Grams:
        return Grams.characters(self.texts)


@dataclass(frozen=True)
class Metric:
    """`best` is what to wish for: high, low, or the value of real text. `value` may raise Undefined."""

    name: str
    unit: str
    best: Literal["high", "low", "real"]
    meaning: str
    value: Callable[[Row], float]


@dataclass(frozen=True)
class ReferenceTexts:
    """Real text: all of `train`, some of it (`fitted`) and some held out (`unseen`) in texts like the samples.

    `lines` cuts a text into the lines that are whole.
    """

    train: Sequence[str]
    fitted: Sequence[str]
    unseen: Sequence[str]
    lines: Callable[[str], Sequence[str]]

    @cached_property
    def judge(self) -> NgramScorer:
        """The n-gram of the training text's characters."""
        return NgramScorer.fit(self.train, characters, CHARACTERS)

    def metrics(self, encoder: Encoder | None = None, judge: Judge | None = None) -> list[Metric]:
        """All that apply."""
        judged = _judged(judge) if judge else []
        return [*self._ngrams(), *_variety(), *self._copies(), *self._distances(encoder), *judged, *self._legal()]

    def _ngrams(self) -> list[Metric]:
        by_char, by_word = self.judge, NgramScorer.fit(self.train, words, WORDS)

        def reverse(row: Row, split: Split, order: int) -> float:
            return NgramScorer.fit(row.texts, split, order).bits(self.unseen)

        unit, judged = "bits/char", "n-gram of the training text on the texts: below real text is too predictable"
        fitted = "n-gram of the texts on unseen real text: what the texts lack costs"
        return [
            Metric("forward bits (characters)", unit, "real", judged, lambda row: by_char.bits(row.texts)),
            Metric("forward bits (words)", unit, "real", judged, lambda row: by_word.bits(row.texts)),
            Metric("reverse bits (characters)", unit, "low", fitted, lambda row: reverse(row, characters, CHARACTERS)),
            Metric("reverse bits (words)", unit, "low", fitted, lambda row: reverse(row, words, WORDS)),
        ]

    def _copies(self) -> list[Metric]:
        known, copies = metrics.lexicon("\n".join(self.train)), Copies(Grams.characters(self.train))
        longest, copied = "longest span of the training text", "spans of 30 characters that the training text has"
        return [
            Metric(
                "valid words", "share", "real", "words of the lexicon", lambda r: metrics.valid_words(r.texts, known)
            ),
            Metric("longest copy", "characters", "real", longest, lambda row: copies.longest(row.chars)),
            Metric("copied spans", "share", "real", copied, lambda row: copies.rate(row.chars)),
        ]

    def _distances(self, encoder: Encoder | None) -> list[Metric]:
        encode = encoder or HashedNgrams(self.fitted)
        real, features = encode(self.unseen), cache(lambda row: encode(row.texts))
        area, distance = "MAUVE: clusters shared with unseen real text", "between Gaussians fitted to features"
        return [
            Metric("frontier area", "0-1", "high", area, lambda row: mauve(features(row), real)),
            Metric("Frechet distance", "squared", "low", distance, lambda row: frechet_distance(features(row), real)),
        ]

    def _legal(self) -> list[Metric]:
        seen = dict.fromkeys(line for text in self.train for line in text.split("\n") if line)
        found = checker(list(seen))
        if not found:
            return []
        check: Check = found

        def legal(row: Row, known: Callable[[str], bool]) -> float:
            lines = [line for text in row.texts for line in self.lines(text)]
            return metrics.share((check(line) and not known(line) for line in lines), "lines")

        novel = "legal lines that the training text has not"
        return [
            Metric("legal", "share", "high", "lines that the language has", lambda row: legal(row, lambda line: False)),
            Metric("novel and legal", "share", "high", novel, lambda row: legal(row, seen.__contains__)),
        ]


def _variety() -> list[Metric]:
    unit, shared, repeated = "bits/word", "4-grams that other texts have too", "4-grams that the text had before"
    return [
        Metric("entropy", unit, "real", "of words within a text", lambda row: metrics.entropy_within(row.words)),
        Metric("pooled entropy", unit, "real", "of all words", lambda row: metrics.unigram_entropy(row.words.ids)),
        *(
            Metric(f"distinct-{n}", "share", "real", "of n-grams of words", lambda r, n=n: metrics.distinct(r.words, n))
            for n in range(1, 5)
        ),
        Metric("self-BLEU", "0-1", "real", shared, lambda row: metrics.self_bleu(row.words)),
        Metric("repetition", "share", "real", repeated, lambda row: metrics.repetition(row.words)),
        Metric("compression", "share", "real", "size after zlib", lambda row: metrics.compression(row.texts)),
    ]


def _judged(judge: Judge) -> list[Metric]:
    judged = cache(lambda row: judge(row.texts))
    warning = "of the judge; worth nothing without the next line"
    return [
        Metric("generative perplexity", "per token", "real", warning, lambda row: judged(row).perplexity),
        Metric("its entropy", "bits/token", "real", "of tokens within a text", lambda row: judged(row).entropy),
    ]
