"""From a request to rows: what the run chooses where the request says nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import concatenate
from textdiffusion.inference.options import SamplingOptions
from textdiffusion.inference.prompts import company
from textdiffusion.inference.revision import Draft, Revision
from textdiffusion.serve.bodies import InfillBody, StreamBody
from textdiffusion.serve.drafts import Drafter
from textdiffusion.serve.facts import facts
from textdiffusion.serve.limits import Limits
from textdiffusion.serve.revising import ReviseBody, revise_plan
from textdiffusion.serve.writing import described, plan

LIMITS = Limits()


def test_gaps_of_a_dual_run_are_filled_by_its_infilling_sampler(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("dual"), device="cpu")
    template = "The [MASK:4] is old."
    assert run.infilling_sampler != run.config.sampler
    made = plan(run, InfillBody(model="", template=template), run.infill_batch(template), 5, LIMITS, None)
    assert made.generation.sampler == run.infilling_sampler
    assert run.decode(made.generation.finish(made.batch), made.batch) == run.infill(template, seed=5)
    free = plan(run, StreamBody(model=""), run.empty_batch(1), 5, LIMITS, None)
    assert free.generation.sampler == run.config.sampler


@pytest.mark.parametrize("temperature", [None, 0.9])
def test_the_temperature_is_the_samplers_own(temperature: float | None, tiny_run: Callable[..., Path]):
    settings = ("sampler.temperature=0.2", "sampler.top_p=0.95")
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", *settings), device="cpu")
    body = StreamBody(model="", temperature=temperature)
    made = plan(run, body, run.empty_batch(1, 8), 5, LIMITS, None)
    assert made.generation.guides == SamplingOptions(temperature=temperature).resolve(run, made.batch).guides
    again = described(made.options)
    assert (again["temperature"], again["top_p"]) == (temperature or 0.2, 0.95)
    found = facts(run, LIMITS)
    assert (found["temperature"], found["top_p"]) == (0.2, 0.95)


def test_a_conversation_takes_no_source(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    pair = {"source": "question", "field": "answer", "chat_template": "plain"}
    text = replace(run.config.text, layout="documents", **pair)
    assert not facts(replace(run, config=replace(run.config, text=text)), LIMITS)["source"]


def test_revisions_share_calls_only_where_their_rows_have_one_layout(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", "text.layout=stream"), device="cpu")
    body = ReviseBody(model="", text="The red pear is old.", strength=0.5)
    made = revise_plan(run, body, 5, LIMITS)
    revision = Revision.of(run, Draft.of(run, [body.text]), 0.5, options=SamplingOptions(seed=5))
    assert torch.equal(made.batch.target_mask, revision.batch.target_mask)
    assert isinstance(made.key, tuple)
    assert made.key[-1] == company(run, revision.batch)
    assert made.generation.t_start == revision.generation.t_start
    assert made.key == revise_plan(run, body, 6, LIMITS).key != revise_plan(run, replace(body, steps=2), 5, LIMITS).key


def test_a_draft_ends_where_its_own_row_does(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    batches = [run.prompt_batch("The red", 1, length) for length in (3, 5)]
    step = next(iter(SamplingOptions(steps=1).resolve(run, batches[0]).run(concatenate(batches))))
    assert [len(text) for text in Drafter(run, concatenate(batches)).texts(step)] == [3, 5]
