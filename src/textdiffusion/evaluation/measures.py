"""What is measured about a set of texts: each metric with its unit, its meaning, and what to wish for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from . import metrics
from .checkers import Check, checker
from .copies import Copies
from .features import Encoder, HashedNgrams, frechet_distance, frontier_area
from .grams import Grams
from .judges import Split, TextJudge, characters, words
from .perplexity import Judge

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
class Real:
    """Real text: all of `train`, some of it (`fitted`) and some held out (`unseen`) in texts like the samples.

    `lines` cuts a text into the lines that are whole.
    """

    train: Sequence[str]
    fitted: Sequence[str]
    unseen: Sequence[str]
    lines: Callable[[str], Sequence[str]]

    @cached_property
    def judge(self) -> TextJudge:
        """The n-gram of the training text's characters."""
        return TextJudge.fit(self.train, characters, CHARACTERS)

    def metrics(self, encoder: Encoder | None = None, judge: Judge | None = None) -> list[Metric]:
        """All that apply."""
        judged = _judged(judge) if judge else []
        return [*self._ngrams(), *_variety(), *self._copies(), *self._distances(encoder), *judged, *self._legal()]

    def _ngrams(self) -> list[Metric]:
        by_char, by_word = self.judge, TextJudge.fit(self.train, words, WORDS)

        def reverse(row: Row, split: Split, order: int) -> float:
            return TextJudge.fit(row.texts, split, order).bits(self.unseen)

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
            Metric("frontier area", "0-1", "high", area, lambda row: frontier_area(features(row), real)),
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
