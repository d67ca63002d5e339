"""The commands that measure runs, as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path

from textdiffusion import TextDiffusion

MakeRun = Callable[..., Path]


def test_evaluate(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    run = tiny_run("mdlm", "text.test_fraction=0.3")
    plain = textdiffusion("evaluate", run, "--target-error", 0.1, "--num", 4)
    assert plain.code == 0
    told = json.loads(textdiffusion("evaluate", run, "--target-error", 0.1, "--num", 4, "--json").out)
    assert "4 texts of unmasking, 6 steps, T = 1, features in float32" in plain.out
    assert "| held-out text |" in plain.out
    assert len(told["texts"]["rows"]) > 15
    for part in (f"<= {told['bits']:.4f}", f"+- {told['monte_carlo_error']:.4f}", f"{told['ngram']['bits']:.4f}"):
        assert part in plain.out
    assert told["protocol"]["text"].startswith("the test part of")
    assert told["protocol"]["weights"] == "ema"
    assert f"protocol {told['digest']} (compare only figures with the same protocol)" in plain.out
    cooled = json.loads(textdiffusion("evaluate", run, "--calibrate", 2, "--draws", 2, "--num", 0, "--json").out)
    assert cooled["protocol"]["calibration"] == 2
    assert cooled["digest"] != told["digest"]
    other = tmp_path / "other.txt"
    other.write_text("The old fig is red.\n" * 10)
    assert textdiffusion("evaluate", run, "--data", other, "--draws", 2, "--num", 0).out.startswith(
        "mdlm, averaged weights, on"
    )
    missing = textdiffusion("evaluate", run, "--data", tmp_path / "none.txt")
    assert (missing.code, missing.out) == (2, "")


def test_evaluate_in_an_order(textdiffusion, tiny_run: MakeRun):
    run = tiny_run("mdlm", "text.test_fraction=0.3")
    options = ("--order", "entropy", "--per-step", 4, "--windows", 3, "--num", 0)
    plain = textdiffusion("evaluate", run, *options)
    score = json.loads(textdiffusion("evaluate", run, *options, "--json").out)
    assert score["exact"]
    assert f"  = {score['bits']:.4f} bits per character\n" in plain.out
    assert "exactly, revealed by entropy, 4 at a time" in plain.out
    assert (score["protocol"]["order"], score["protocol"]["per_step"]) == ("entropy", 4)
    bound = json.loads(textdiffusion("evaluate", run, "--draws", 2, "--windows", 3, "--num", 0, "--json").out)
    assert not bound["exact"]
    assert bound["digest"] != score["digest"]
    unused = textdiffusion("evaluate", run, "--per-step", 4)
    assert (unused.code, unused.out) == (2, "")
    assert "--per-step 4 has no effect without --order" in unused.err


def test_evaluate_warns_of_training_text_and_does_without_it(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The red pear is old.\n" * 60)
    run = tiny_run("autoregressive", f"text.data={corpus}")
    seen = textdiffusion("evaluate", run, "--data", corpus, "--num", 0)
    assert "was trained on" in seen.err
    assert "  = " in seen.out
    assert TextDiffusion.from_pretrained(run).config.text.data == str(corpus)
    other = tmp_path / "other.txt"
    other.write_text("The red pear is old.\n" * 9)
    corpus.unlink()
    alone = textdiffusion("evaluate", run, "--data", other, "--num", 2)
    assert alone.code == 0
    assert "Kneser-Ney" in alone.out  # the text was moved, but what was prepared of it is there


def test_evaluate_counts_solved_questions(textdiffusion, tiny_run: MakeRun):
    reading = [f"text.{setting}" for setting in ("layout=lines", "split=documents", "mask=question")]
    run = tiny_run("autoregressive", "text.data=brackets:easy:3000", *reading)
    done = textdiffusion("evaluate", run, "--windows", 3)
    assert "of 3 questions solved" in done.out
    assert json.loads(textdiffusion("evaluate", run, "--windows", 3, "--json").out)["answers"]["questions"] == 3
    assert "writes only to a question" in textdiffusion("frontier", run).err


def test_frontier_and_compare(textdiffusion, tiny_run: MakeRun, tmp_path: Path):
    run = tiny_run("mdlm", "text.test_fraction=0.3")
    few = ("--num", 4, "--temperatures", 0.5, 1)
    ordered = ("--samplers", "unmasking:order=left", "unmasking:order=random", "--steps", 2, 4, "--order-windows", 2)
    assert "There is no option --draws" in textdiffusion("frontier", run, "--draws", 2).err
    assert "each of --temperatures above 0" in textdiffusion("frontier", run, "--temperatures", 0).err
    assert "Each of --steps must be at least 1" in textdiffusion("compare", run, "--steps", 4, 0).err
    assert "--order-windows is -1" in textdiffusion("frontier", run, "--order-windows", -1).err
    assert "--per-step 4 has no effect" in textdiffusion("compare", run, "--per-step", 4).err
    assert "--levels is -1" in textdiffusion("compare", run, "--levels", -1).err
    done = textdiffusion("frontier", run, *few, *ordered, "--out", tmp_path / "a.svg")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split("\t")[:6] == ["sampler", "steps", "T", "calls", "exact bits", "forward bits"]
    rows = [line.split("\t")[:5] for line in lines[1:10]]
    own, left = ("unmasking", "6", "1"), "unmasking:order=left"
    assert {tuple(row[:3]) for row in rows[:3]} == {own, (left, "2", "1"), (left, "4", "1")}
    bits = [float(row[4]) for row in rows[:3]]
    assert bits == sorted(bits)  # ranked by their likelihood
    assert {row[4] for row in rows[3:]} == {"-"}
    assert done.out.count("Only unmasking in a deterministic order".lower()) == 1
    assert "held-out text" in done.out
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    told = json.loads(textdiffusion("frontier", run, *few, *ordered, "--json").out)
    ranked = [point for point in told["points"] if point["likelihood"]]
    assert {point["likelihood"]["protocol"]["per_step"] for point in ranked} == {6, 8, 16}
    assert len({point["digest"] for point in ranked}) == 3
    assert told["dtype"] == "float32"
    assert [point["run"] for point in told["points"][:2]] == [run.name] * 2
    assert "its name must end in .svg" in textdiffusion("frontier", run, "--out", "a.png").err
    order = ("--order", "left", "--per-step", 8, "--windows", 2)
    page = textdiffusion(
        "compare", run, *few, *ordered, *order, "--draws", 2, "--levels", 2, "--out", tmp_path / "a.html"
    )
    assert page.code == 0, page.err
    assert [run.name, "mdlm", "<="] in [line.replace("|", " ").split()[:3] for line in page.out.splitlines()]
    assert "revealed by left, 8 at a time" in page.out
    written = (tmp_path / "a.html").read_text()
    assert run.name in written
    assert "by left, 8 at a time" in written
    assert "Exact likelihood against network calls" in written
    assert "there is no folder" in textdiffusion("compare", run, "--out", tmp_path / "none" / "a.html").err
