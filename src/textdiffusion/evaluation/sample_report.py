"""One table about samples: every metric, for the samples, real text and cheap imitations of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.errors import UserError
from ..scoring.protocol import Fact
from .metrics.base import Best, Encoder, Metric, ReferenceTexts, TextSet, all_metrics
from .metrics.bits import character_ngram
from .ngram_scorer import NgramScorer, words
from .ngram_statistics import Undefined
from .perplexity import Judge

REAL = "held-out text"
SHUFFLED, IMITATED, COPIED = BASELINES = "shuffled words", "n-gram samples", "copied training text"
MAX_REFERENCE_TEXTS = 2000
BETTER: dict[Best, str] = {"high": "higher", "low": "lower", "real": "near held-out text"}


@dataclass(frozen=True)
class MetricRow:
    """One metric of every set of texts. `best` is the value to aim for: high, low, or the held-out text's (`real`).

    A value is None where the metric is undefined. `beaten_by` lists the baselines that the metric ranks above a set of
    samples, or above real text: where there are any, the metric alone does not show that samples are good.
    """

    name: str
    unit: str
    best: Best
    meaning: str
    values: dict[str, float | None]
    beaten_by: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Report:
    """The table, and the protocol that two tables must share to be compared. `dataclasses.asdict` of it is JSON."""

    rows: tuple[MetricRow, ...]
    protocol: dict[str, Fact]

    @property
    def text_sets(self) -> tuple[str, ...]:
        """The names of all sets of texts: the samples, real text and the baselines."""
        return tuple(self.rows[0].values)

    def __str__(self) -> str:
        """Markdown; `!` marks values that a baseline beats, and the sentences below name it."""
        table = [["metric", "unit", "better", *self.text_sets]]
        for row in self.rows:
            values = ["-" if value is None else f"{value:.4g}" for value in row.values.values()]
            marks = ["!" if row.beaten_by.get(name) else "" for name in row.values]
            table.append([row.name, row.unit, BETTER[row.best], *map(str.__add__, values, marks)])
        facts = ", ".join(f"{name} {value}" for name, value in self.protocol.items())
        return "\n".join([*markdown_table(table), "", f"Protocol: {facts}.", *self.warnings()])

    def select(self, names: Mapping[str, str]) -> Report:
        """Some of the sets of texts, by their names in this report, each under a new name."""
        rows = [
            replace(
                row,
                values={new: row.values[old] for old, new in names.items()},
                beaten_by={new: row.beaten_by[old] for old, new in names.items() if old in row.beaten_by},
            )
            for row in self.rows
        ]
        return replace(self, rows=tuple(rows))

    def warnings(self) -> list[str]:
        """A sentence per baseline that some metrics rank above a set of samples, or above real text."""
        metrics: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for name, baselines in row.beaten_by.items():
                for baseline in baselines:
                    metrics.setdefault((baseline, name), []).append(row.name)
        sentences = []
        for (baseline, name), listed in metrics.items():
            others = [row.name for row in self.rows if row.name not in listed]
            which = ", ".join(listed) if len(listed) <= len(others) or not others else f"all but {', '.join(others)}"
            sentences.append(f"! {baseline} would beat {name} by {which}.")
        return sentences


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line; `markdown_table` escapes bars."""
    return re.sub(r"[\\`*\[\]<>~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown; the first of `rows` is its head."""
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
    """Measures the samples of one or more models, by name, together with real text and the baselines.

    `train` and `heldout` are running text, which is cut into windows as long as the samples, or lists of examples such
    as lines. Samples are compared with the first half of the held-out text; texts of its second half are the set
    `held-out text`. Many metrics depend on the number and length of texts, so all sets have as many texts as the
    smallest (and, of running text, all texts are cut to the mean length of the shortest samples). Empty samples are
    left out, and so are sets with fewer than two others. `encoder` turns texts into features (None: `HashedNgrams`);
    `judge` adds generative perplexity and its entropy.

    Raises UserError where no set of samples remains, and for too little held-out or training text.
    """
    is_running = isinstance(train, str)
    if is_running != isinstance(heldout, str):
        raise UserError("Training and held-out text must both be running text, or both be lists of examples.")
    if reserved := {REAL, *BASELINES} & set(samples):
        raise UserError(f"Every report has texts named {reserved.pop()!r}: give these samples another name.")
    nonempty = {name: [text for text in texts if text] for name, texts in samples.items()}
    num_empty = {name: len(samples[name]) - len(texts) for name, texts in nonempty.items()}
    omitted = [name for name, texts in nonempty.items() if len(texts) < 2]
    nonempty = {name: texts for name, texts in nonempty.items() if name not in omitted}
    if not nonempty:
        raise UserError("A report needs at least two samples that are not empty.")
    length = min(sum(map(len, texts)) // len(texts) for texts in nonempty.values()) if is_running else None
    train_texts, heldout_texts = _cut(train, length), _cut(heldout, length)
    encoder_texts, train_texts = train_texts[::2], train_texts[1::2]  # no set shares texts with the encoder
    unseen, real = heldout_texts[: len(heldout_texts) // 2], heldout_texts[len(heldout_texts) // 2 :]
    count = min(len(train_texts), len(real), *map(len, nonempty.values()))
    if count < 2 or len(unseen) < 2:
        counts = f"{len(heldout_texts)} held-out and {len(encoder_texts) + len(train_texts)} training texts"
        raise UserError(f"{counts} as long as the samples are too few: give at least four of each.")
    references = ReferenceTexts(
        [train] if isinstance(train, str) else train,
        _spread(encoder_texts, MAX_REFERENCE_TEXTS // 2),
        _spread(unseen, MAX_REFERENCE_TEXTS),
        _inner_lines if is_running else _all_lines,
        encoder,
        judge,
    )
    rng = np.random.default_rng(seed)
    copied = [train_texts[i] for i in rng.choice(len(train_texts), count, replace=False)]
    texts = {name: [sample[:length] for sample in texts[:count]] for name, texts in nonempty.items()} | {
        REAL: _spread(real, count),
        SHUFFLED: ["".join(rng.permutation(words(sample))) for sample in copied],
        IMITATED: _imitate(references.once(character_ngram), copied, is_running, seed),
        COPIED: copied,
    }
    text_sets = {name: TextSet(listed) for name, listed in texts.items()}
    metrics = [metric for metric in all_metrics() if metric.applies(references)]
    rows = tuple(_measure(metric, text_sets, references, [*nonempty, REAL]) for metric in metrics)
    protocol: dict[str, Fact] = {"texts": count, "compared with": len(references.unseen), "seed": seed}
    protocol |= {"training characters": sum(map(len, references.train))} | ({"length": length} if length else {})
    protocol |= {f"empty samples of {name}, left out": number for name, number in num_empty.items() if number}
    return Report(rows, protocol | ({"left out, as all their texts are empty": ", ".join(omitted)} if omitted else {}))


def _measure(
    metric: Metric, text_sets: Mapping[str, TextSet], references: ReferenceTexts, judged: Sequence[str]
) -> MetricRow:
    values: dict[str, float | None] = {}
    for name, texts in text_sets.items():
        try:
            values[name] = float(metric.value(texts, references))
        except Undefined:
            values[name] = None
    target = values[REAL]

    def loss(name: str) -> float:
        """What good texts have little of; NaN, which is below nothing, where the metric is undefined."""
        value = values[name]
        if value is None or (metric.best == "real" and target is None):
            return math.nan
        return {"low": value, "high": -value, "real": abs(value - (target or 0.0))}[metric.best]

    beaten_by = {name: tuple(other for other in BASELINES if loss(other) < loss(name)) for name in judged}
    return MetricRow(metric.name, metric.unit, metric.best, metric.meaning, values, beaten_by)


def _cut(text: str | Sequence[str], length: int | None) -> list[str]:
    if isinstance(text, str):
        assert length is not None
        return [text[i : i + length] for i in range(0, len(text) - length + 1, length)]
    return [example for example in text if example]


def _inner_lines(text: str) -> Sequence[str]:
    """The lines of running text but the first and the last, which are cut off."""
    return text.split("\n")[1:-1]


def _all_lines(text: str) -> Sequence[str]:
    return text.removesuffix("\n").split("\n")


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """At most `count` of the texts, evenly spaced."""
    return [texts[i] for i in np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)]


def _imitate(scorer: NgramScorer, examples: Sequence[str], is_running: bool, seed: int) -> list[str]:
    """As many samples of the n-gram as there are examples: running text, or the first complete text of each row."""
    longest = max(map(len, examples))
    if is_running:
        return ["".join(texts) for texts in scorer.sample(len(examples), longest, seed)]
    return [(texts[1:-1] or texts)[0] for texts in scorer.sample(len(examples), 3 * longest, seed)]
