"""What the lm-evaluation-harness asks of runs, and the real harness on a local task where it is installed."""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.data.chat import PLAIN, ChatTemplate
from textdiffusion.evaluation.harness import (
    PRESETS,
    GenerationRequest,
    HarnessAdapter,
    _generation_request,
    generation_settings,
    register,
)
from textdiffusion.inference.options import SamplingOptions

Runs = Callable[..., Path]


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive"])
def test_log_likelihoods_are_conditional_scores_in_nats(recipe: str, tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run(recipe))
    adapter = HarnessAdapter(model, draws=2)
    found = adapter.log_likelihood(" fresh.", "The red fig is")
    score = model.score([" fresh."], prefix="The red fig is", draws=2)[0]
    assert found == pytest.approx(-score.bits * 7 * math.log(2), rel=1e-6)
    assert adapter.errors == [pytest.approx(score.monte_carlo_error * 7 * math.log(2))]
    assert (adapter.model_info()["loglikelihoods"] == "exact") == (recipe == "autoregressive")
    assert adapter.log_likelihood("") == 0.0


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive", "block_diffusion"])
def test_the_greedy_text_is_what_is_written_cold(recipe: str, tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run(recipe))
    adapter = HarnessAdapter(model)
    context = "The red fig is"
    written = model.infill(f"{context}[MASK:6]", temperature=1e-3)[0].removeprefix(context)
    assert adapter.is_greedy(written, context)
    other = written[:-1] + ("a" if written[-1] != "a" else "b")
    assert not adapter.is_greedy(other, context)
    assert not HarnessAdapter(model, greedy=False).is_greedy(written, context)
    if recipe == "autoregressive":
        ids = torch.from_numpy(model.tokenizer.encode(context + written))[None]
        logits = model.model.denoiser(ids, torch.zeros(1), batch=Batch(ids)).logits
        assert (logits.argmax(-1)[0, -6:] == ids[0, -6:]).all()


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive"])
@pytest.mark.parametrize("settings", [(), ("text.layout=lines",), ("text.layout=lines", "text.model_padding=true")])
def test_continuations_stop_and_do_not_depend_on_each_other(recipe: str, settings: tuple[str, ...], tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *settings))
    adapter = HarnessAdapter(model)
    requests = [
        GenerationRequest("The red", max_tokens=5),
        GenerationRequest("The ripe plum is sweet.The ripe plum is sweet."),
        GenerationRequest("", ("e",), 8),
    ]
    texts = adapter.generate(requests)
    assert len(texts[0]) <= 5
    assert len(texts[1]) <= 16  # the other half of the window is context
    assert "e" not in texts[2]
    assert len(adapter.truncated_contexts) == 1
    if settings:  # padding is not seen, but for rounding
        assert [adapter.generate([request])[0] for request in requests] == texts


def test_what_is_too_long_is_cut_and_counted_once(tiny_run: Runs, tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"))
    adapter, text = HarnessAdapter(model), "The red fig is sweet."
    assert adapter.log_likelihood(text, "red " * 20 + "The ripe pl") == adapter.log_likelihood(text, "The ripe pl")
    assert adapter.log_likelihood(2 * text, "The") == pytest.approx(adapter.log_likelihood(2 * text))
    assert not adapter.is_greedy(2 * text, "The")
    assert len(adapter.truncated_contexts) == 2
    adapter = HarnessAdapter(TextDiffusion.from_pretrained(tiny_run("autoregressive", "text.tokenizer=bytes")))
    for max_tokens in range(12):  # some cuts fall inside a character
        assert len(adapter._truncate("“да” " * 4, max_tokens).encode()) <= max_tokens
    (tmp_path / "d.jsonl").write_text('{"what": "a red fig", "text": "It is sweet."}\n' * 40)
    reading = f"data={tmp_path}/d.jsonl", "field=text", "source=what", "layout=documents"
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive", *(f"text.{setting}" for setting in reading)))
    adapter, long = HarnessAdapter(model), "a red fig " * 9
    for own in ("It is sweet.", "It is sweet." * 4):
        assert adapter.log_likelihood(own, long) < 0
        assert not adapter.is_greedy(own, long)
    assert len(adapter.generate([GenerationRequest(long, max_tokens=4)])[0]) <= 4
    assert adapter.model_info()["contexts_truncated"] == 1


def test_settings_of_generation_reach_the_sampler(tiny_run: Runs):
    adapter = HarnessAdapter(TextDiffusion.from_pretrained(tiny_run("mdlm")))
    options = {"max_gen_toks": 9, "temperature": 1.0}
    requests = [
        _generation_request("The red", options | more)
        for more in ({}, {"top_k": 1}, {"top_p": 1e-6, "do_sample": True})
    ]
    free, best, likeliest = adapter.generate(requests)
    assert best == likeliest != free
    with pytest.raises(UserError, match="sets num_beams, which runs do not support"):
        _generation_request("", {"num_beams": 2})


@pytest.mark.parametrize("recipe", ["mdlm", "autoregressive"])
def test_contexts_of_a_chat_template_are_prompts_with_its_tokens(recipe: str, tiny_run: Runs):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, "text.layout=lines"))
    model = TextDiffusion(run.model, run.tokenizer, run.config, chat_template=ChatTemplate(PLAIN))
    adapter = HarnessAdapter(model)
    talks = [[{"role": "u", "content": content}] for content in ("red", "[END]", "fig is")]
    contexts = [adapter.apply_chat_template(talk) for talk in talks]
    requests = [GenerationRequest(context, max_tokens=4) for context in contexts]
    assert adapter.generate(requests) == model.chat(talks, length=4, temperature=1e-3)
    started = adapter.apply_chat_template([*talks[0], {"role": "assistant", "content": "old"}], answer=False)
    assert started == contexts[0] + "old"
    assert not adapter.truncated_contexts
    adapter.generate([GenerationRequest(adapter.apply_chat_template(talks[0] * 4), max_tokens=4)])
    assert len(adapter.truncated_contexts) == 1
    with pytest.raises(UserError, match="has no chat template; ask without one"):
        HarnessAdapter(run).apply_chat_template(talks[0])


def test_presets_are_settings_that_others_replace(tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    requests = [GenerationRequest("The red", max_tokens=6, temperature=1.0)]
    for name, preset in PRESETS.items():
        expected = model.generate(
            prompt="The red", length=6, sampler=preset.sampler, temperature=preset.temperature, top_p=preset.top_p
        )
        adapter = HarnessAdapter(model, sampling=generation_settings(name))
        assert adapter.generate(requests) == expected
        assert adapter.model_info()["sampler"] == preset.sampler
    assert generation_settings("dream", temperature=0.0, steps=3) == SamplingOptions(
        sampler=PRESETS["dream"].sampler, steps=3, temperature=0.0, top_p=0.95
    )
    with pytest.raises(UserError, match="no preset 'lada'; it can be llada, dream, fast_dllm"):
        generation_settings("lada")


def test_an_order_gives_exact_log_likelihoods(tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    adapter = HarnessAdapter(model, order="entropy", per_step=4)
    score = model.score([" fresh."], prefix="The red fig is", order="entropy", per_step=4)[0]
    assert adapter.log_likelihood(" fresh.", "The red fig is") == pytest.approx(-score.total * math.log(2))
    assert adapter.errors == [0.0]
    assert adapter.model_info()["loglikelihoods"] == "exact"


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
    folder = TextDiffusion.from_pretrained(tiny_run("mdlm")).save_pretrained(tmp_path / "run")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}?{% endfor %}")
    written: dict[str, Any] = {**tasks.pop(), "task": "toy_chat"}
    chat = lm_eval.simple_evaluate(
        model="textdiffusion",
        model_args={"pretrained": str(folder), "preset": "llada", "order": "left"},
        tasks=[written],
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )
    answers = TextDiffusion.from_pretrained(folder).chat(
        [[{"role": "user", "content": row["text"]}] for row in rows],
        length=6,
        sampler=PRESETS["llada"].sampler,
        temperature=0.0,
        stop=".",
    )
    assert [sample["resps"][0][0] for sample in chat["samples"]["toy_chat"]] == answers
    tasks = [*tasks, {**written, "task": "toy_write"}]
    run = tiny_run("mdlm")
    found = lm_eval.simple_evaluate(
        model="textdiffusion", model_args={"pretrained": str(run), "draws": 4}, tasks=tasks, bootstrap_iters=0
    )
    assert set(found["results"]) == {task["task"] for task in tasks}
    info = found["config"]
    assert info["loglikelihoods"] == "lower bounds"
    assert info["monte_carlo_error_nats"]["largest"] > 0
    model = TextDiffusion.from_pretrained(run)
    adapter = HarnessAdapter(model, draws=4)
    sums = [[adapter.log_likelihood(text, row["text"]) for text in (" old.", " fresh.")] for row in rows]
    right = [int(old > fresh) if number == 0 else int(fresh > old) for number, (old, fresh) in enumerate(sums)]
    assert found["results"]["toy_choice"]["acc,none"] == sum(right) / 2
    nats = -sum(adapter.log_likelihood(row["text"]) for row in rows)
    assert found["results"]["toy_text"]["bits_per_byte,none"] == pytest.approx(
        nats / math.log(2) / sum(len(row["text"]) for row in rows), rel=1e-6
    )


def test_log_likelihoods_of_an_order(tiny_run: Runs):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    adapter = HarnessAdapter(model, order="entropy", per_step=2)
    score = model.score([" fresh."], prefix="The red fig is", order="entropy", per_step=2)[0]
    assert adapter.log_likelihood(" fresh.", "The red fig is") == pytest.approx(-score.total * math.log(2), rel=1e-6)
    facts = adapter.model_info()
    assert (facts["loglikelihoods"], facts["order"], facts["per_step"]) == ("exact", "entropy", 2)
