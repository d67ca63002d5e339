"""Runs in one table: every figure once, kept, and refused beside figures of another kind."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.evaluation import bench
from textdiffusion.evaluation.bench import EvalOptions
from textdiffusion.evaluation.compare import compare
from textdiffusion.evaluation.frontier import GeneratedTexts, SamplerSetting, judge_texts, sampler_settings
from textdiffusion.evaluation.heldout import RealText, held_out
from textdiffusion.evaluation.report.page import markdown
from textdiffusion.evaluation.sample_report import BASELINES, REAL
from textdiffusion.objectives import NextTokenLikelihood
from textdiffusion.scoring.likelihood import bits_per_character

OPTIONS = EvalOptions(num=4, draws=2, levels=2, steps=(2, 3), temperatures=(0.5,))


def test_a_table_is_made_once_and_what_is_lost_is_made_again(
    tiny_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = [tiny_run(recipe, "text.test_fraction=0.3") for recipe in ("mdlm", "autoregressive")]
    runs = [str(shutil.copytree(run, tmp_path / run.name, ignore=shutil.ignore_patterns("measured"))) for run in made]
    options = replace(OPTIONS, order="entropy", per_step=8)
    found = compare(runs, options, tmp_path)
    assert [run.likelihood.bits for run in found.runs] == sorted(run.likelihood.bits for run in found.runs)
    assert {run.likelihood.digest for run in found.runs} == {found.digest}
    assert found.report is not None
    assert set(found.report.text_sets) == {run.name for run in found.runs} | {REAL, *BASELINES}
    of = {run.recipe: run for run in found.runs}
    exact = of["mdlm"].in_order
    assert exact is not None
    assert exact.exact
    assert not of["mdlm"].likelihood.exact
    assert (exact.protocol["order"], exact.protocol["per_step"]) == ("entropy", 8)
    assert exact.digest != found.digest
    assert of["autoregressive"].in_order is None  # reveals no masks
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(found).splitlines()]
    assert sum("bits revealed by entropy, 8 at a time" in row for row in rows) == 1
    assert [row[-1] for row in rows if row and row[:2] == [of["mdlm"].name, "mdlm"]] == [f"{exact.bits:.4f}"]
    assert [row[-1] for row in rows if row and row[1:2] == ["autoregressive"]] == ["-"]
    assert f"protocol {exact.digest}" in markdown(found)
    own = {
        SamplerSetting("unmasking", 2, 0.5),
        SamplerSetting("unmasking", 3, 0.5),
        SamplerSetting("unmasking", 6, 1.0),
    }
    assert {each.setting for each in of["mdlm"].texts} == own
    assert {str(each.setting) for each in of["autoregressive"].texts} == {  # takes one step per token
        "autoregressive, 32 steps, T = 0.5",
        "autoregressive, 32 steps, T = 1",
    }
    assert all(each.dtype == "float32" and len(each.texts) == 4 for run in found.runs for each in run.texts)
    for run in found.runs:
        assert run.curve is not None
        assert run.curve.sees_clean_prefix == (run.recipe == "autoregressive")
        entropy = of["autoregressive"].curve
        assert entropy is not None
        assert 0 < max(run.curve.remaining) < 1.05 * entropy.remaining[-1]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured twice")

    kept = sorted(Path(runs[0], "measured").iterdir())
    assert sorted(path.name.partition("-")[0] for path in kept) == ["bits", "bits", "denoising", *["texts"] * 3]
    with monkeypatch.context() as patch:
        patch.setattr(bench, "bits_per_character", never)
        patch.setattr(bench, "noise_curve", never)
        patch.setattr(TextDiffusion, "decode", never)
        assert asdict(compare(runs, options, tmp_path)) == asdict(found)
        kept[-1].write_text("damaged")
        with pytest.raises(AssertionError, match="measured twice"):
            compare(runs[:1], options, tmp_path)


def test_settings_have_the_exact_likelihood_of_what_they_draw(tiny_run: Callable[..., Path], tmp_path: Path):
    """By the order and the positions in a step; none at another temperature, and none of a random order."""
    model = TextDiffusion.from_pretrained(tiny_run("dual", "text.test_fraction=0.3"))
    samplers = ("unmasking:order=entropy", "unmasking:order=random", "autoregressive")
    options = EvalOptions(num=2, samplers=samplers, steps=(4, 12), temperatures=(0.5, 1.0), order_windows=2)
    evaluator = bench.RunEvaluator(model, options, tmp_path, lambda text: None)
    texts = evaluator.texts()
    found = {(each.setting.sampler, each.setting.steps): each.likelihood for each in texts if each.likelihood}
    assert set(found) == {("autoregressive", 32), ("unmasking:order=entropy", 4)}  # 12 steps do not split 32 evenly
    assert all(each.setting.temperature == 1.0 for each in texts if each.likelihood)
    windows = held_out(model, tmp_path, count=2)
    for likelihood, setting in (
        (NextTokenLikelihood(), ("autoregressive", 32)),
        (model.order_likelihood("entropy", 8), ("unmasking:order=entropy", 4)),
    ):
        assert found[setting].bits == pytest.approx(bits_per_character(model.model, windows, likelihood).bits, rel=1e-5)
    assert found["unmasking:order=entropy", 4].protocol["per_step"] == 8
    _, points = judge_texts({"dual": texts}, evaluator.real_text, tmp_path)
    assert [point.likelihood for point in points if point.setting] == [each.likelihood for each in texts]
    assert not any(point.likelihood for point in points if not point.setting)
    with pytest.raises(UserError, match="The order is 'easiest'"):
        EvalOptions(order="easiest")


def test_a_setting_without_texts_leaves_alone(tmp_path: Path):
    """What is empty under one setting is left out by name; all others are judged."""

    def wrote(steps: int, *texts: str) -> GeneratedTexts:
        return GeneratedTexts(SamplerSetting("ancestral", steps, 1.0), texts, 1.0, "float32")

    runs = {"one": [wrote(8, "", "", "a fig"), wrote(4, "a fig", "a plum")], "two": [wrote(8, "a fig", "", "a pear")]}
    report, points = judge_texts(runs, RealText("a red fig is old. " * 40, "a ripe plum is red. " * 40), tmp_path)
    assert list(report.text_sets) == ["two", REAL, *BASELINES]
    steps = [(point.run, point.setting and point.setting.steps) for point in points]
    assert steps[:3] == [("one", 4), ("two", 8), (REAL, None)]
    assert report.protocol["left out, as all their texts are empty"] == "one: ancestral, 8 steps, T = 1"
    with pytest.raises(UserError, match="at least two samples that are not empty"):
        judge_texts({"one": [wrote(8, "", "a")]}, RealText("a red fig. " * 40, "a plum. " * 40), tmp_path)


def test_every_run_is_loaded_once_and_calibrated_on_the_text_there_is(
    tiny_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A temperature that was fitted on another text is no figure of this one."""
    text = tmp_path / "corpus.txt"
    text.write_text("The red fig is old.\n" * 40)
    run = str(tiny_run("mdlm", f"text.data={text}"))
    loaded, load, options = (
        [],
        TextDiffusion.from_pretrained,
        EvalOptions(num=0, draws=2, levels=0, windows=2, calibrate=1),
    )
    monkeypatch.setattr(
        TextDiffusion, "from_pretrained", lambda source, **how: loaded.append(source) or load(source, **how)
    )
    compare([run], replace(options, data="grammar:60"), tmp_path)
    assert loaded == [run]
    text.write_text("The ripe plum is sweet.\n" * 40)
    with pytest.raises(UserError, match="is not the one that the run was trained on"):
        compare([run], replace(options, data="grammar:60"), tmp_path)
    assert len([*Path(run, "measured").glob("bits-*")]) == 1


def test_unlike_protocols_are_refused_before_anything_is_measured(tiny_run: Callable[..., Path], tmp_path: Path):
    runs = [str(tiny_run("mdlm", f"text.length={length}", "text.test_fraction=0.25")) for length in (16, 32)]
    short, long = (Path(run).name for run in runs)
    with pytest.raises(UserError, match=f"the window in tokens is 16 for {short} and 32 for {long}"):
        compare(runs, OPTIONS, tmp_path)
    assert not any(Path(run, "measured").exists() for run in runs)
    with pytest.raises(UserError, match="named twice"):
        compare([runs[0], runs[0]], OPTIONS, tmp_path)


def test_settings_refuse_what_no_sampler_can_do(tiny_run: Callable[..., Path]):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    assert sampler_settings(model) == [SamplerSetting("unmasking", 6, 1.0)]
    assert sampler_settings(model, ["euler"], [4], [0.7])[1:] == [SamplerSetting("euler", 4, 0.7)]
    with pytest.raises(UserError, match="DDIM cannot act on AbsorbingProcess"):
        sampler_settings(model, ["ddim"])
