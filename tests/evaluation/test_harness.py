"""What the lm-evaluation-harness asks of runs, and the real harness on a local task where it is installed."""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.evaluation.harness import Answers, Asked, _asked, register

Runs = Callable[..., Path]


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive"])
def test_log_likelihoods_are_conditional_scores_in_nats(recipe: str, tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run(recipe))
    answers = Answers(model, draws=2)
    found = answers.log_likelihood(" fresh.", "The red fig is")
    score = model.score([" fresh."], prefix="The red fig is", draws=2)[0]
    assert found == pytest.approx(-score.bits * 7 * math.log(2), rel=1e-6)
    assert answers.errors == [pytest.approx(score.monte_carlo_error * 7 * math.log(2))]
    assert (answers.about()["loglikelihoods"] == "exact") == (recipe == "autoregressive")
    assert answers.log_likelihood("") == 0.0


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive", "block_diffusion"])
def test_the_greedy_text_is_what_is_written_cold(recipe: str, tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run(recipe))
    answers = Answers(model)
    context = "The red fig is"
    written = model.infill(f"{context}[MASK:6]", temperature=1e-3)[0].removeprefix(context)
    assert answers.is_greedy(written, context)
    other = written[:-1] + ("a" if written[-1] != "a" else "b")
    assert not answers.is_greedy(other, context)
    assert not Answers(model, greedy=False).is_greedy(written, context)
    if recipe == "autoregressive":
        ids = torch.from_numpy(model.tokenizer.encode(context + written))[None]
        logits = model.model.denoiser(ids, torch.zeros(1), batch=Batch(ids)).logits
        assert (logits.argmax(-1)[0, -6:] == ids[0, -6:]).all()


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive"])
@pytest.mark.parametrize("settings", [(), ("text.layout=lines",), ("text.layout=lines", "text.model_padding=true")])
def test_continuations_stop_and_do_not_depend_on_each_other(recipe: str, settings: tuple[str, ...], tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *settings))
    answers = Answers(model)
    asked = [Asked("The red", tokens=5), Asked("The ripe plum is sweet.The ripe plum is sweet."), Asked("", ("e",), 8)]
    texts = answers.continued(asked)
    assert len(texts[0]) <= 5
    assert len(texts[1]) <= 16  # the other half of the window is context
    assert "e" not in texts[2]
    assert len(answers.cut) == 1
    if settings:  # padding is not seen, but for rounding
        assert [answers.continued([one])[0] for one in asked] == texts


def test_what_is_too_long_is_cut_and_counted_once(tiny_run: Runs, tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"))
    answers, text = Answers(model), "The red fig is sweet."
    assert answers.log_likelihood(text, "red " * 20 + "The ripe pl") == answers.log_likelihood(text, "The ripe pl")
    assert answers.log_likelihood(2 * text, "The") == pytest.approx(answers.log_likelihood(2 * text))
    assert not answers.is_greedy(2 * text, "The")
    assert len(answers.cut) == 2
    answers = Answers(TextDiffusion.from_pretrained(tiny_run("autoregressive", "text.tokenizer=bytes")))
    for room in range(12):  # some cuts fall inside a character
        assert len(answers._fitting("“да” " * 4, room).encode()) <= room
    (tmp_path / "d.jsonl").write_text('{"what": "a red fig", "text": "It is sweet."}\n' * 40)
    reading = f"data={tmp_path}/d.jsonl", "field=text", "source=what", "layout=documents"
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive", *(f"text.{setting}" for setting in reading)))
    answers, long = Answers(model), "a red fig " * 9
    for own in ("It is sweet.", "It is sweet." * 4):
        assert answers.log_likelihood(own, long) < 0
        assert not answers.is_greedy(own, long)
    assert len(answers.continued([Asked(long, tokens=4)])[0]) <= 4
    assert answers.about()["contexts_cut"] == 1


def test_settings_of_generation_reach_the_sampler(tiny_run: Runs):
    answers = Answers(TextDiffusion.from_pretrained(tiny_run("mdlm")))
    options = {"max_gen_toks": 9, "temperature": 1.0}
    asked = [_asked("The red", options | more) for more in ({}, {"top_k": 1}, {"top_p": 1e-6, "do_sample": True})]
    free, best, likeliest = answers.continued(asked)
    assert best == likeliest != free
    with pytest.raises(UserError, match="generate with num_beams, which"):
        _asked("", {"num_beams": 2})


def test_the_harness_is_an_extra():
    if find_spec("lm_eval") is None:
        with pytest.raises(UserError, match=r"textdiffusion\[eval\]"):
            register()


@pytest.mark.timeout(600)  # importing the harness alone takes seconds
def test_the_real_harness_measures_a_run(tiny_run: Runs, tmp_path: Path):
    lm_eval = pytest.importorskip("lm_eval", reason="lm_eval (extra `eval`, 480 MB) is not installed")
    register()
    rows = [{"text": f"The {a} fig is", "answer": b} for a, b in (("red", " old."), ("ripe", " fresh."))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{answer}}",
    }
    choice = {"output_type": "multiple_choice", "doc_to_choice": [" old.", " fresh."], "target_delimiter": ""}
    tasks = [
        {"task": "toy_choice", **shared, **choice},
        {"task": "toy_next", **shared, "output_type": "loglikelihood", "target_delimiter": ""},
        {"task": "toy_text", **shared, "output_type": "loglikelihood_rolling", "doc_to_target": "{{text}}"},
        {
            "task": "toy_write",
            **shared,
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["."], "max_gen_toks": 6},
        },
    ]
    run = tiny_run("mdlm")
    found = lm_eval.simple_evaluate(
        model="textdiffusion", model_args={"pretrained": str(run), "draws": 4}, tasks=tasks, bootstrap_iters=0
    )
    assert set(found["results"]) == {task["task"] for task in tasks}
    info = found["config"]
    assert info["loglikelihoods"] == "lower bounds"
    assert info["monte_carlo_error_nats"]["largest"] > 0
    model = TextDiffusion.from_pretrained(run)
    answers = Answers(model, draws=4)
    sums = [[answers.log_likelihood(text, row["text"]) for text in (" old.", " fresh.")] for row in rows]
    right = [int(old > fresh) if number == 0 else int(fresh > old) for number, (old, fresh) in enumerate(sums)]
    assert found["results"]["toy_choice"]["acc,none"] == sum(right) / 2
    nats = -sum(answers.log_likelihood(row["text"]) for row in rows)
    assert found["results"]["toy_text"]["bits_per_byte,none"] == pytest.approx(
        nats / math.log(2) / sum(len(row["text"]) for row in rows), rel=1e-6
    )
