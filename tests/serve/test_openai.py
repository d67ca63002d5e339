"""OpenAI's own client with our server."""

import json
from pathlib import Path
from typing import Any

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.inference.options import SamplingOptions

from .conftest import Server

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(server: Server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def test_models_say_what_they_can_do(client):
    plays, restaurants, sudoku, *_ = client.models.list().data
    assert [plays.id, restaurants.id, sudoku.id] == ["shakespeare", "restaurants", "sudoku"]
    assert restaurants.textdiffusion["label"] == ["English", "Italian"]
    assert restaurants.textdiffusion["source"]
    assert sudoku.textdiffusion["task"] == "sudoku"
    guides = {guide["name"]: guide for guide in plays.textdiffusion["guides"]}
    assert {"word", "regex"} <= set(guides)
    assert not {"classifier", "energy"} & set(guides)  # they read files of the server
    assert "repaint" not in guides  # this run keeps given tokens itself
    names = [sampler["name"] for sampler in plays.textdiffusion["samplers"]]
    assert plays.textdiffusion["sampler"] in names
    assert client.models.retrieve("sudoku").id == "sudoku"


def test_completions(client):
    answer = client.completions.create(model="shakespeare", prompt=["The ", "My l"], n=2, max_tokens=9, seed=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [len(choice.text) for choice in answer.choices] == [9] * 4  # a token is a character
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 36)
    alone = client.completions.create(model="shakespeare", prompt="My l", n=2, max_tokens=9, seed=4)
    assert [choice.text for choice in alone.choices] == [choice.text for choice in answer.choices[2:]]
    echoed = client.completions.create(model="shakespeare", prompt="My l", max_tokens=9, seed=4, echo=True)
    assert echoed.choices[0].text == "My l" + alone.choices[0].text


def test_a_suffix_is_kept(client, server: Server):
    body = {"model": "shakespeare", "prompt": "The ", "suffix": " pear", "max_tokens": 5, "seed": 2, "echo": True}
    text = client.completions.create(**body).choices[0].text
    assert text.startswith("The ")
    assert text.endswith(" pear")
    filled = server.post("/v1/infill", {"model": "shakespeare", "template": "The [MASK:5] pear", "seed": 2})[1]
    assert filled["texts"] == [text]


def test_a_backslash_before_a_gap_is_text(client, server: Server, in_bytes: dict[str, Path]):
    prompt = "a\\"
    body = {"model": in_bytes["stream"].name, "prompt": prompt, "seed": 2}
    assert server.events(body | {"length": 3})[-1][1]["text"].startswith(prompt)
    body |= {"max_tokens": 3, "echo": True}
    text = client.completions.create(**body, suffix="\\[MASK").choices[0].text
    assert text.startswith(prompt)
    assert text.endswith("\\[MASK")


def test_stop_texts_end_a_text(client):
    body = {"model": "shakespeare", "prompt": "The ", "max_tokens": 20, "seed": 1}
    whole = client.completions.create(**body).choices[0]
    stop = whole.text[7:9]
    cut = client.completions.create(**body, stop=[stop, "\0"]).choices[0]
    assert cut.text == whole.text[: whole.text.find(stop)]
    assert (whole.finish_reason, cut.finish_reason) == ("length", "stop")
    echoed = client.completions.create(**body, stop=[stop, "The", "\0"], echo=True).choices[0]
    assert echoed.text == "The " + client.completions.create(**body, stop=[stop, "The", "\0"]).choices[0].text
    body["suffix"] = "The end"
    assert client.completions.create(**body, stop="The e", echo=True).choices[0].text.endswith("The end")


def test_a_stream_has_drafts_that_others_ignore(client):
    body: dict[str, Any] = {"model": "shakespeare", "prompt": "The ", "max_tokens": 12, "seed": 1, "n": 2}
    body |= {"extra_body": {"steps": 4}}
    whole = client.completions.create(**body)
    options = {"include_usage": True}
    chunks = list(client.completions.create(**body, stream=True, stream_options=options))
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    drafts = [chunk.draft for chunk in chunks if getattr(chunk, "draft", None)]
    assert drafts[0]["text"] == "▒" * 12
    assert chunks[-1].usage == whole.usage
    plain = client.completions.create(**body, stream=True, stream_options={"include_drafts": False})
    assert not any(getattr(chunk, "draft", None) for chunk in plain)


def test_a_schema_holds(client, in_bytes: dict[str, Path]):
    properties = {
        "kind": {"enum": ["pear", "fig"]},
        "ripe": {"type": "boolean"},
        "age": {"type": "integer", "minimum": 0},
    }
    schema = {"type": "object", "properties": properties, "required": ["kind", "ripe"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "fruit", "schema": schema}}
    body = {"extra_body": {"response_format": response_format}, "n": 4, "seed": 3}
    for run in in_bytes.values():
        answer = client.completions.create(model=run.name, prompt="", max_tokens=45, **body)
        for choice in answer.choices:
            value = json.loads(choice.text)
            assert value["kind"] in ("pear", "fig")
            assert isinstance(value["ripe"], bool)
            assert choice.finish_reason == "stop"


def test_a_pattern_holds_after_a_prompt(client, in_bytes: dict[str, Path]):
    more = {"extra_body": {"regex": "[a-d]{5}[.!]"}}
    answer = client.completions.create(model=in_bytes["stream"].name, prompt="The (", max_tokens=6, seed=3, n=2, **more)
    for choice in answer.choices:
        assert set(choice.text[:5]) <= set("abcd")
        assert choice.text[5:] in (".", "!")


def test_a_conversation_is_answered(client, in_bytes: dict[str, Path]):
    """Streamed and not, with the texts of the run itself."""
    run = TextDiffusion.from_pretrained(in_bytes["lines"], device="cpu")
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "red fig"}]
    messages: list[Any] = [{"role": "system", "content": "kind"}, {"role": "user", "content": parts}]
    plain = [{"role": "system", "content": "kind"}, {"role": "user", "content": "the red fig"}]
    body: dict[str, Any] = {"model": "chat", "messages": messages, "n": 3, "max_tokens": 9, "seed": 4}
    answer = client.chat.completions.create(**body)
    texts = [choice.message.content for choice in answer.choices]
    assert texts == run.chat(plain, 3, 9, seed=4)
    assert all(choice.message.role == "assistant" for choice in answer.choices)
    batch = run.chat_batch(plain, 3, 9)
    found = run.continuations(SamplingOptions(seed=4).resolve(run, batch).finish(batch), batch)
    assert answer.usage.completion_tokens == sum(each.num_tokens for each in found)
    assert answer.usage.prompt_tokens == int(batch.text_starts[0])  # pyrefly: ignore[unsupported-operation]
    reasons = ["length" if each.finish == "length" else "stop" for each in found]
    assert [choice.finish_reason for choice in answer.choices] == reasons
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert client.models.retrieve("chat").textdiffusion["chat"]


def test_a_schema_holds_in_an_answer(client):
    properties = {"kind": {"enum": ["pear", "fig"]}, "ripe": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["kind", "ripe"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "fruit", "schema": schema}}
    messages = [{"role": "user", "content": "which?"}]
    answer = client.chat.completions.create(
        model="chat", messages=messages, n=3, max_tokens=40, seed=1, response_format=response_format
    )
    for choice in answer.choices:
        assert set(json.loads(choice.message.content)) == {"kind", "ripe"}
        assert choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "shakespeare"}, "no chat template"),
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "last message is the assistant's"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must be text"),
        ({"messages": [{"role": "user", "content": None}]}, "must be text"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "Tools are not supported"),
        ({"extra_body": {"source": "a"}}, "no source"),
    ],
)
def test_what_is_no_conversation_is_refused(client, body: dict, words: str):
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**{"model": "chat", "messages": [{"role": "user", "content": "Hello"}]} | body)


def test_texts_are_those_of_the_run(client, packaged_models: Path):
    run = TextDiffusion.from_pretrained(packaged_models / "shakespeare", device="cpu")
    for prompt in ("The red ", ""):
        answer = client.completions.create(model="shakespeare", prompt=prompt, n=2, max_tokens=9, seed=7)
        assert [choice.text for choice in answer.choices] == run.generate(2, 9, prompt=prompt, seed=7)


@pytest.mark.parametrize(
    ("error", "body", "words"),
    [
        ("NotFoundError", {"model": "gpt-4"}, "no model 'gpt-4'; it can be shakespeare"),
        ("BadRequestError", {"logprobs": 3}, "no log-probability"),
        ("BadRequestError", {"best_of": 3}, "best_of"),
        ("BadRequestError", {"n": 0}, "n is 0"),
        ("BadRequestError", {"n": 1000}, "n is 1,000"),
        ("BadRequestError", {"max_tokens": 10**9}, "max_tokens"),
        ("BadRequestError", {"temperature": -1}, "temperature is -1"),
        ("BadRequestError", {"top_p": 0}, "top_p is 0"),
        ("BadRequestError", {"seed": -1}, "seed is -1"),
        ("BadRequestError", {"presence_penalty": 1}, "repetition_penalty"),
        ("BadRequestError", {"stop": ["a"] * 99}, "99 stop texts"),
        ("BadRequestError", {"stop": ""}, "stop text is empty"),
        ("BadRequestError", {"prompt": "a" * 30_000}, "30,000 characters"),
        ("BadRequestError", {"prompt": "a" * 3000}, "at most 2,048"),
        ("BadRequestError", {"prompt": [1, 2]}, "tokens are not supported"),
        ("BadRequestError", {"extra_body": {"steps": 10**6}}, "steps is 1,000,000"),
        ("BadRequestError", {"extra_body": {"sampler": "ddim"}}, "This run can use"),
        (
            "BadRequestError",
            {"extra_body": {"guides": ["classifier:path=/etc/passwd,label=a"]}},
            "cannot use the guide",
        ),
        ("BadRequestError", {"extra_body": {"guides": ["word"] * 99}}, "99 guides"),
        ("BadRequestError", {"extra_body": {"regex": "(a{1000}){1000}"}}, "longer than"),
        ("BadRequestError", {"extra_body": {"regex": "(a"}}, "never closed"),
        ("BadRequestError", {"extra_body": {"regex": "a{90}"}}, "texts of 90 tokens can"),
        ("BadRequestError", {"extra_body": {"label": "French"}}, "no labels"),
    ],
)
def test_errors_say_what_is_wrong(client, error: str, body: dict, words: str):
    body = {"model": "shakespeare", "prompt": "", "max_tokens": 8} | body
    with pytest.raises(getattr(openai, error), match=words):
        client.completions.create(**body)
