"""Files of requests and results: any order of work, any interruption, the same file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.data.chat import PLAIN, ChatTemplate
from textdiffusion.inference.options import SamplingOptions
from textdiffusion.inference.requests import read_requests
from textdiffusion.inference.results import ResultOptions, write_results

MakeRun = Callable[..., Path]
OPTIONS = ResultOptions(SamplingOptions(seed=3), length=7, stops=("z",))
RECORDS: list[dict[str, Any]] = [
    *({"id": f"p{i}", "prompt": "The red pear is old."[: 3 * i]} for i in range(6)),
    {"messages": [{"role": "user", "content": "fig"}]},
    {"template": "The [MASK:4] fig."},
    {"template": "A [MASK:3] pear."},
    {"prompt": "The red"},
]


@pytest.fixture
def run(tiny_run: MakeRun) -> TextDiffusion:
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", "text.layout=lines"), device="cpu")
    return TextDiffusion(run.model, run.tokenizer, run.config, chat_template=ChatTemplate(PLAIN))


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS)) + "\n\n")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_are_those_of_each_request_alone_in_order(run: TextDiffusion, requests: Path, tmp_path: Path):
    progress: list[tuple[int, int]] = []
    write_results(
        run, read_requests(requests), tmp_path / "out", OPTIONS, lambda *count: progress.append((count[0], count[1]))
    )
    results = lines(tmp_path / "out")
    assert [result["id"] for result in results] == [*(f"p{i}" for i in range(6)), 7, 8, 9, 10]
    assert progress == [(i, 10) for i in range(11)]
    for record, result in zip(RECORDS, results, strict=True):
        if "prompt" in record:
            alone = run.generate(prompt=record["prompt"], length=7, seed=3, stop="z")
        elif "messages" in record:
            alone = run.chat(record["messages"], length=7, seed=3, stop="z")
        else:
            alone = run.infill(record["template"], seed=3)
        assert [result["text"]] == alone
        assert ("finish" in result) == ("template" not in record)


def test_a_stopped_file_is_continued_to_the_same_bytes(run: TextDiffusion, requests: Path, tmp_path: Path):
    asked, whole, path = read_requests(requests), tmp_path / "whole", tmp_path / "out"
    write_results(run, asked, whole, OPTIONS)
    everything = whole.read_bytes()
    for cut in (0, 5, everything.index(b"\n"), everything.index(b"\n") + 1, len(everything) // 2, len(everything)):
        path.write_bytes(everything[:cut])
        assert write_results(run, asked, path, OPTIONS) == everything[:cut].count(b"\n")
        assert path.read_bytes() == everything


def test_a_file_of_other_requests_or_options_is_refused_and_stays(run: TextDiffusion, requests: Path, tmp_path: Path):
    asked, path = read_requests(requests), tmp_path / "out"
    write_results(run, asked[:3], path, OPTIONS)
    before = path.read_bytes()
    other = ResultOptions(SamplingOptions(seed=4), length=7, stops=("z",))
    for wrong, options in ((asked, other), (asked[1:], OPTIONS), (asked[:2], OPTIONS)):
        with pytest.raises(UserError, match=r"out, line \d: not a result of this request"):
            write_results(run, wrong, path, options)
        assert path.read_bytes() == before
    path.write_text("my notes\n")
    with pytest.raises(UserError, match="line 1: not a result"):
        write_results(run, asked, path, OPTIONS)
    assert path.read_text() == "my notes\n"


def test_several_texts_of_a_request_are_in_one_line(run: TextDiffusion, requests: Path, tmp_path: Path):
    write_results(run, read_requests(requests)[:2], tmp_path / "out", ResultOptions(SamplingOptions(), num=3, length=4))
    assert lines(tmp_path / "out")[1]["texts"] == run.generate(3, prompt="The", length=4)


def test_a_request_that_cannot_be_answered_is_refused_before_the_first(run: TextDiffusion, tmp_path: Path):
    path = tmp_path / "requests"
    path.write_text('{"prompt": "The"}\n{"id": "long", "prompt": "' + "The red " * 9 + '"}\n')
    with pytest.raises(UserError, match="Request 'long': The prompt has 72 tokens"):
        write_results(run, read_requests(path), tmp_path / "out", ResultOptions(SamplingOptions()))
    assert not (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "line 2 is not a JSON object"),
        ('{"prompt": "a"', "line 2 is not JSON"),
        ('{"promt": "a"}', "must have one of prompt, messages, template; it has none"),
        ('{"prompt": "a", "template": "b"}', "it has prompt and template"),
        ('{"prompt": 3}', "line 2: prompt must be a text"),
        ('{"prompt": "a", "id": [1]}', "the id must be a text or a number"),
        ('{"messages": []}', "messages must be a list of messages"),
    ],
)
def test_lines_that_ask_for_nothing_are_refused(line: str, says: str, tmp_path: Path):
    path = tmp_path / "requests.jsonl"
    path.write_text(f'{{"prompt": ""}}\n{line}\n')
    with pytest.raises(UserError, match=says):
        read_requests(path)
