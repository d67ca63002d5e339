"""The table ranks real text above cheats, says where it does not, and is JSON."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data.builtin import grammar
from textdiffusion.evaluation.metrics import base
from textdiffusion.evaluation.perplexity import Perplexity
from textdiffusion.evaluation.sample_report import BASELINES, COPIED, IMITATED, REAL, SHUFFLED, sample_report


@pytest.fixture(scope="module")
def report():
    """Grammar as running text: real samples of it, and one sentence over and over."""
    text = "\n".join(grammar.sentences(4000))
    train, held = text[:100_000], text[100_000:]
    frequent = Counter(train.split("\n")).most_common(1)[0][0]
    good = "\n".join(grammar.sentences(500, seed=9))
    rows = {
        "good": [good[i : i + 128] for i in range(0, 128 * 80, 128)],
        "phrase": [f"{frequent}\n" * 20] * 90,
    }
    return sample_report(rows, train, held, judge=lambda texts: Perplexity(3.0, float(len(set(texts))), 1.0, 1, "test"))


def values(report, name):
    return next(line.values for line in report.rows if line.name == name)


def test_reference_rows_stand_beside_the_samples(report):
    for line in report.rows:
        assert list(line.values) == ["good", "phrase", REAL, *BASELINES]
        assert line.best in ("high", "low", "real")
        assert line.unit
        assert line.meaning
    assert report.protocol["texts"] == 80
    assert report.protocol["length"] == 128
    assert json.loads(json.dumps(asdict(report)))["rows"][0]["values"]["good"] > 0


def test_the_repeated_phrase_is_exposed(report):
    """It is legal and has few forward bits, and nothing else speaks for it."""
    forward = values(report, "forward bits (characters)")
    assert forward["phrase"] < 0.9 * forward[REAL]
    assert values(report, "legal")["phrase"] == 1
    for name in ("reverse bits (characters)", "reverse bits (words)", "Frechet distance", "self-BLEU", "repetition"):
        assert values(report, name)["phrase"] > 1.5 * max(values(report, name)["good"], 0.02), name
    for name in ("entropy", "distinct-2", "compression", "MAUVE (own features)", "novel and legal"):
        assert values(report, name)["phrase"] < 0.7 * values(report, name)["good"], name


def test_good_samples_are_near_real_text(report):
    for line in report.rows:
        if line.best == "real" and line.unit == "bits per character":
            assert line.values["good"] == pytest.approx(line.values[REAL], rel=0.15), line.name
    assert values(report, "legal")["good"] == values(report, "legal")[REAL] == 1
    assert values(report, "legal")[SHUFFLED] < 0.2
    assert values(report, "copied spans")[COPIED] == 1
    assert values(report, "longest copy")[COPIED] == 128
    assert values(report, "novel and legal")[COPIED] == 0
    assert values(report, "forward bits (words)")[SHUFFLED] > 1.3 * values(report, "forward bits (words)")[REAL]


def test_metrics_that_rank_naive_rows_above_samples_are_flagged(report):
    for line in report.rows:
        for row in ("good", "phrase", REAL):
            target = {"high": np.inf, "low": -np.inf, "real": line.values[REAL]}[line.best]
            for naive in BASELINES:
                own, other = line.values[row], line.values[naive]
                nearer = (
                    abs(other - target) < abs(own - target)
                    if np.isfinite(target)
                    else np.sign(target) * (other - own) > 0
                )
                assert (naive in line.beaten_by[row]) == nearer
    printed = str(report)
    assert f"{SHUFFLED} would beat phrase by" in printed
    shown = next(text for text in printed.splitlines() if text.startswith("| MAUVE (own features)"))
    assert "!" in shown.split("|")[5]  # the phrase


def test_perplexity_stands_beside_entropy(report):
    names = [line.name for line in report.rows]
    assert names[names.index("generative perplexity") + 1] == "token entropy"
    assert values(report, "token entropy")["phrase"] == 1


def test_examples_are_measured_whole(data: Path):
    train = (data / "corpora/mtd_simple_train.txt").read_text().splitlines()[:3000]
    test = (data / "corpora/mtd_simple_test.txt").read_text().splitlines()[:400]
    found = sample_report({"other": [line + "\n" for line in test[:50]], "none": ["The"] * 50}, train, test)
    assert values(found, "legal")["other"] == values(found, "legal")[REAL] == values(found, "legal")[COPIED] == 1
    assert values(found, "novel and legal")[REAL] > 0.5
    assert 0.2 < values(found, "legal")[IMITATED] < 1
    assert values(found, "copied spans")["none"] is None
    assert "length" not in found.protocol


@pytest.mark.parametrize(
    ("rows", "train", "held", "why"),
    [
        ({}, "a" * 99, "a" * 99, "two samples"),
        ({"run": ["a", ""]}, "a" * 99, "a" * 99, "two samples"),
        ({"run": ["aaa"] * 4}, "a" * 99, "a" * 9, "too few"),
        ({"run": ["aaa"] * 4}, ["a"] * 99, "a" * 99, "both"),
        ({REAL: ["aaa"] * 4}, "a" * 99, "a" * 99, "another name"),
    ],
)
def test_what_cannot_be_measured_is_said(rows, train, held, why):
    with pytest.raises(UserError, match=why):
        sample_report(rows, train, held)


def test_a_new_metric_is_one_function(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "_METRICS", dict(base._METRICS))

    @base.metric("lines", unit="per text", best="real", meaning="lines of the texts")
    def lines(texts: base.TextSet, real: base.ReferenceTexts) -> float:
        return sum(text.count("\n") for text in texts.texts) / len(texts.texts)

    found = sample_report({"two": ["a\nb\nc\n"] * 4}, ["a\n"] * 40, ["b\n"] * 40)
    assert values(found, "lines")["two"] == 3
    assert values(found, "lines")[REAL] == 1
    with pytest.raises(ValueError, match="two metrics named 'lines'"):
        base.metric("lines", unit="", best="low", meaning="")(lines)


def test_the_page_of_metrics_lists_them_all():
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    table = text.split("| what fools it |")[1].split("\n\n")[0]
    listed = {}
    for row in table.splitlines()[2:]:
        name, unit, best, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        listed[name] = unit, best
    assert listed == {metric.name: (metric.unit, metric.best) for metric in base.all_metrics()}
