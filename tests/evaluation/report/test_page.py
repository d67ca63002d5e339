"""The page of a comparison, as a browser without network or script has it."""

import re
from pathlib import Path

import pytest

from tests.views.test_html import Page
from textdiffusion.evaluation.bench import InformationCurve, RunResults, TaskScore
from textdiffusion.evaluation.compare import Comparison
from textdiffusion.evaluation.frontier import FrontierPoint, GeneratedTexts, SamplerSetting
from textdiffusion.evaluation.ngram import Baseline
from textdiffusion.evaluation.report.charts import Axis
from textdiffusion.evaluation.report.figures import DIVERSITY, QUALITY
from textdiffusion.evaluation.report.page import markdown, write_frontier, write_report
from textdiffusion.evaluation.sample_report import BASELINES, REAL, MetricRow, Report
from textdiffusion.evaluation.training_log import TrainingLog
from textdiffusion.scoring.likelihood import LikelihoodEstimate
from textdiffusion.scoring.protocol import Fact

NAMES = ["<first> & best", *(f"run-{i}" for i in range(2, 9)), "run|9"]


def measured(name: str, number: int) -> RunResults:
    facts: dict[str, Fact] = {"weights": "ema", "dtype": "float32", "characters": 900, "windows": 30, "window": 32}
    likelihood = LikelihoodEstimate(2.0 + number / 7, 0.01, 0.2, number == 3, 900, 30, 8, facts)
    curve = InformationCurve((0.1, 1.0, 4.0), (0.1, 0.8, 4.1), (0.0, 0.1, 0.1), sees_clean_prefix=number == 3)
    training = TrainingLog(40, 9000, 12.5, ((4.0, 3.0 + number, 0.1), (12.0, 2.5, None)))
    texts = [
        GeneratedTexts(SamplerSetting("ancestral", steps, t), ("{{TITLE}} <b>", "two"), 1.0 * steps, "float32")
        for steps, t in ((64, 1.0), (8, 0.5), (8, 1.0))
    ]
    score = TaskScore(0.5, 0.05, 100) if number == 2 else None
    return RunResults(name, "mdlm", "ema", "float32", 1234567, likelihood, curve, training, score, tuple(texts))


@pytest.fixture
def found() -> Comparison:
    runs = tuple(measured(name, number) for number, name in enumerate(NAMES))
    rows = dict.fromkeys([*NAMES, REAL, *BASELINES], 3.0) | {"run-2": None}
    metrics = [
        MetricRow(n, "bits", "real", f"about {n}", rows, {NAMES[0]: ("n-gram samples",)}) for n in (QUALITY, DIVERSITY)
    ]
    points = [
        FrontierPoint(run.name, each.setting, 8.0, {QUALITY: 2.0, DIVERSITY: 5.0}) for run in runs for each in run.texts
    ]
    points += [
        FrontierPoint(name, None, None, {QUALITY: 2.5, DIVERSITY: None if i else 7.0})
        for i, name in enumerate([REAL, *BASELINES])
    ]
    report = Report(tuple(metrics), {"texts": 6})
    return Comparison(
        "some text",
        runs,
        runs[0].likelihood.protocol,
        "abc",
        Baseline(2.2, 7, 99),
        report,
        "",
        tuple(points),
        ("real",),
    )


def test_the_page_holds_everything_and_fetches_nothing(found: Comparison, tmp_path: Path):
    write_report(found, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "http" not in text.replace('http-equiv="Content-Security-Policy" content="default-src \'none\'', "")
    assert "url(" not in text
    assert "src=" not in text
    assert len(text) < 200_000
    page = Page(text)
    heads = [attributes for tag, attributes in page.tags if tag == "th" and attributes.get("scope") == "col"]
    assert all(attributes["aria-sort"] == "none" for attributes in heads)
    assert len(heads) == sum(tag == "button" for tag, _ in page.tags)
    for name in NAMES[1:]:
        assert page.texts["th"].count(name) >= 3  # in every table
    assert text.count("&lt;first&gt; &amp; best") > 5
    assert "<first>" not in text
    assert text.count("{{TITLE}} &lt;b&gt;") == 9  # what a run wrote stays text
    assert "n-gram samples would beat" in text
    assert "± draws" in text
    assert "7-gram" in text
    assert "50.0%" in text
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(charts) == 3 + len(NAMES)
    assert all(attributes["aria-label"] for attributes in charts)
    assert "averaged (EMA)" in text
    assert "prefers-color-scheme: dark" in text


def test_markdown_and_a_picture(found: Comparison, tmp_path: Path):
    table = markdown(found)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    assert ["run-2", "mdlm", "<= 2.1429", "0.0100", "0.200", "-", "1,234,567", "12"] in rows
    assert ["run-4", "mdlm", "2.4286"] in [row[:3] for row in rows]
    assert [r"run\|9", "mdlm"] in [row[:2] for row in rows]
    escaped = NAMES[0].replace("<", r"\<").replace(">", r"\>")
    assert f"! n-gram samples would beat {escaped} by {QUALITY}" in table
    write_frontier("run-2", found.points, tmp_path / "a.svg")
    picture = (tmp_path / "a.svg").read_text()
    assert picture.startswith("<svg ")
    assert 'xmlns="http://www.w3.org/2000/svg"' in picture
    assert "prefers-color-scheme" in picture


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.03, 2.09), (-3.0, 812.0)])
def test_ticks_are_round_and_inside(low: float, high: float):
    ticks = Axis("", low, high).ticks()
    assert 3 <= len(ticks) <= 9
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
