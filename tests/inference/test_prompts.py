"""Prompts and messages: what continues them, alone and in batches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.data.chat import PLAIN, ChatTemplate

MakeRun = Callable[..., Path]
LINES = ("text.layout=lines", "text.model_padding=true")
FAMILIES = [
    ("mdlm",),
    ("block_diffusion", "text.layout=lines"),
    ("autoregressive", "text.layout=lines"),
    ("udlm",),
    ("cdcd", "text.mask=mixed"),
    ("cdcd", "text.mask=none", *LINES),
]
PROMPTS = ["The red", "", "The green fig is old.", "The ripe plum is", "T", "The red pear "]


@pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
@pytest.mark.parametrize("length", [None, 9])
def test_prompts_of_a_batch_do_not_change_each_other(family: tuple[str, ...], length: int | None, tiny_run: MakeRun):
    """The short form of benchmarks/prompts.py, for 100 prompts of more families."""
    run = TextDiffusion.from_pretrained(tiny_run(*family), device="cpu")
    prompts = PROMPTS if length else PROMPTS[:4]
    together = run.generate(2, prompt=prompts, length=length, seed=3)
    alone = [text for prompt in prompts for text in run.generate(2, prompt=prompt, length=length, seed=3)]
    assert together == alone
    assert len(set(together)) > 3
    if length and "text.layout=lines" not in family:
        assert {len(text) for text in together} == {9}


def test_a_continuation_follows_its_prompt_exactly(tiny_run: MakeRun):
    """The rows that padding makes as wide as others are the rows of a template of the same length."""
    run = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    for prompt in ("The red", "", "The ripe plum i"):
        template = run.infill(f"{prompt}[MASK:{16 - len(prompt)}]", num=3, seed=1)
        assert [prompt + text for text in run.generate(3, prompt=prompt, length=16 - len(prompt), seed=1)] == template
        padded = run.infill(f"{prompt}[MASK:5]", num=3, seed=1)
        assert [prompt + text for text in run.generate(3, prompt=prompt, length=5, seed=1)] == padded


@pytest.mark.parametrize(
    ("recipe", "sampler"),
    [
        ("autoregressive", None),
        ("block_diffusion", None),
        ("block_diffusion", "block_unmasking:steps=0"),
        ("mdlm", "unmasking:order=left,steps=0"),
    ],
)
def test_sampling_stops_when_every_row_has_ended(recipe: str, sampler: str | None, tiny_run: MakeRun):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *LINES), device="cpu")
    batch = run.prompt_batch("The red", 6)
    steps = list(run.stream(batch=batch, seed=2, sampler=sampler))
    plain = list(run.stream(batch=replace(batch, text_starts=None), seed=2, sampler=sampler))
    assert steps[-1].index == steps[-1].total == plain[-1].total
    assert run.decode(steps[-1], batch) == [text.removeprefix("The red") for text in run.decode(plain[-1])]

    def ended(tokens: list[int]) -> bool:
        first = tokens.index(run.tokenizer.end_id) if run.tokenizer.end_id in tokens else len(tokens)
        return max(tokens[:first]) < run.tokenizer.vocab_size

    done = [all(map(ended, step.tokens.tolist())) for step in plain]
    assert done.index(True) == len(steps) - 1


def test_prompts_that_do_not_fit_are_refused(tiny_run: MakeRun):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    long = "The red pear is old. " * 2
    with pytest.raises(UserError, match="The prompt has 42 tokens and leaves no room in a window of 32"):
        run.generate(prompt=long)
    assert len(run.generate(prompt=long, length=4)[0]) == 4
    with pytest.raises(UserError, match="length is 0"):
        run.generate(prompt="The", length=0)
    with pytest.raises(UserError, match="takes no source"):
        run.generate(prompt="The", source="x")
    with pytest.raises(UserError, match="Several sources go without a prompt"):
        run.generate(prompt="The", source=["x", "y"])
    assert run.generate(prompt="The", stop="e", num=8, length=8) != run.generate(prompt="The", num=8, length=8)


def test_words_that_include_their_space_begin_after_the_prompt(tiny_run: MakeRun):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", "text.tokenizer=words"), device="cpu")
    for text in run.generate(8, prompt="The red ", length=3):
        assert text[0] != " "
    for text in run.generate(8, prompt="The red", length=1, top_k=3):
        assert run.infill(f"The red{text}[MASK:1]")[0].startswith(f"The red{text}")


@pytest.fixture
def chat_run(tiny_run: MakeRun) -> TextDiffusion:
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", *LINES), device="cpu")
    return TextDiffusion(run.model, run.tokenizer, run.config, chat_template=ChatTemplate(PLAIN))


def test_messages_are_written_by_the_template_and_answered(chat_run: TextDiffusion, tmp_path: Path):
    messages = [{"role": "u", "content": "red"}, {"role": "r", "content": "fig"}, {"role": "u", "content": "is"}]
    batch = chat_run.chat_batch(messages, 2, 6)
    start = int(batch.text_starts[0])  # pyrefly: ignore[unsupported-operation]
    end = chat_run.tokenizer.end_id
    assert batch.tokens[0, :start].tolist().count(end) == 3
    assert torch.equal(batch.condition_mask[0], ~batch.target_mask[0])  # pyrefly: ignore[unsupported-operation]
    answers = chat_run.chat(messages, 2, 6)
    assert answers == chat_run.chat([messages, "red"], 2, 6)[:2]
    assert all(len(answer) <= 6 for answer in answers)
    folder = chat_run.save_pretrained(tmp_path / "run")
    again = TextDiffusion.from_pretrained(folder, device="cpu")
    assert again.chat_template == chat_run.chat_template
    assert again.chat(messages, 2, 6) == answers


def test_what_is_no_conversation_is_refused(chat_run: TextDiffusion, tiny_run: MakeRun):
    for messages, says in (
        ([{"role": "user"}], "not an object with the texts"),
        ([], "must be a list of messages"),
        ([{"role": "assistant", "content": "a"}], "The last message is the assistant's"),
    ):
        with pytest.raises(UserError, match=says):
            chat_run.chat(messages)  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(UserError, match="has no chat template, so it cannot chat"):
        TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu").chat("red")


def test_the_tokens_of_a_continuation_are_counted_to_its_end(chat_run: TextDiffusion):
    from textdiffusion.inference.continuation import read_continuation

    tokenizer = chat_run.tokenizer
    end = tokenizer.end_id
    assert end is not None
    ids = np.concatenate(
        [tokenizer.encode("red"), [end], tokenizer.encode("fig"), tokenizer.encode(" is"), [end, 0, 0]]
    )
    found = read_continuation(ids, 7, tokenizer, {end})
    assert (found.text, found.num_tokens, found.finish) == (" is", 3, "end")
    assert found.truncated(["s"]).text == " i"
    assert read_continuation(ids[:9], 7, tokenizer, {end}).finish == "length"
    assert read_continuation(ids[:9], 7, tokenizer, {end}, "i").text == " "


@pytest.mark.parametrize("family", [("mdlm",), ("block_diffusion", "text.layout=lines")], ids=" ".join)
def test_patterns_concern_what_continues_a_prompt(family: tuple[str, ...], tiny_run: MakeRun):
    run = TextDiffusion.from_pretrained(tiny_run(*family), device="cpu")
    for text in run.generate(
        2, prompt=["The red", "The green fig is old."], length=6, guides=["regex:pattern=[a-d]{6}"]
    ):
        assert len(text) == 6
        assert set(text) <= set("abcd")
