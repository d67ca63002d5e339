"""`textdiffusion sample` with prompts, messages and files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.data.chat import PLAIN

MakeRun = Callable[..., Path]
LINES = ("text.layout=lines", "text.model_padding=true")


@pytest.fixture
def chat_folder(tiny_run: MakeRun, tmp_path: Path) -> Path:
    folder = TextDiffusion.from_pretrained(tiny_run("mdlm", *LINES)).save_pretrained(tmp_path / "run")
    (folder / "chat_template.jinja").write_text(PLAIN)
    return folder


def test_a_prompt_is_continued_and_the_continuation_printed(textdiffusion, tiny_run: MakeRun):
    run = tiny_run("mdlm")
    expected = TextDiffusion.from_pretrained(run).generate(3, prompt="The red", length=6, seed=4)
    words = ("sample", run, "--prompt", "The red", "--length", 6, "--seed", 4, "--num", 3)
    assert textdiffusion(*words).out == "".join(text + "\n" for text in expected)
    facts = json.loads(textdiffusion(*words, "--json").out)
    assert (facts["texts"], facts["prompt"], facts["length"]) == (expected, "The red", 6)
    assert textdiffusion(*words, "--watch").code == 0
    assert len(json.loads(textdiffusion(*words, "--json", "--best-of", 2, "--rank").out)["texts"]) == 3


def test_a_message_is_answered(textdiffusion, chat_folder: Path, tmp_path: Path):
    run = TextDiffusion.from_pretrained(chat_folder)
    talk = [{"role": "system", "content": "red"}, {"role": "user", "content": "fig"}]
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, talk)))
    (tmp_path / "one.jsonl").write_text(json.dumps({"messages": talk}))
    (tmp_path / "two.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 2)
    words = ("sample", chat_folder, "--length", 6, "--json", "--chat")
    assert json.loads(textdiffusion(*words, "fig").out)["texts"] == run.chat("fig", length=6)
    for name in ("talk", "one"):
        assert json.loads(textdiffusion(*words, tmp_path / f"{name}.jsonl").out)["texts"] == run.chat(talk, length=6)
    assert "has 2 conversations; answer them with --input" in textdiffusion(*words, tmp_path / "two.jsonl").err


def test_a_file_is_answered_line_by_line(textdiffusion, chat_folder: Path, tmp_path: Path):
    asked, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text('{"prompt": "The", "id": "a"}\n{"messages": [{"role": "user", "content": "red"}]}\n')
    words = ("sample", chat_folder, "--input", asked, "--output", out, "--length", 5)
    done = textdiffusion(*words)
    assert (done.code, done.out, done.err) == (0, f"{out} has 2 results.\n", "")
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(result["id"], len(result["text"]) <= 5) for result in results] == [("a", True), (2, True)]
    assert textdiffusion(*words).out == f"{out} has 2 results, 2 of them before.\n"
    assert "not a result of this request" in textdiffusion(*words, "--seed", 1).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prompt", "a", "--chat", "b"), "--prompt and --chat exclude each other"),
        (("--input", "a"), "--input and --output go together"),
        (("--output", "a"), "--input and --output go together"),
        (("--input", "a", "--output", "b", "--watch"), "--watch shows or chooses texts, which --input does not"),
        (("--input", "a", "--output", "b", "--mbr", 2), "--best-of shows or chooses"),
        (("--input", "a", "--output", "b", "--source", "c"), "--source has no effect with --input"),
        (("--input", "nothing.jsonl", "--output", "b"), "nothing.jsonl is missing"),
        (("--chat", "a", "--rank"), "--best-of and --rank measure texts and continuations"),
        (("--chat", "a"), "This run has no chat template"),
        (("--prompt", "The red pear is old. " * 2), "leaves no room in a window of 32"),
    ],
)
def test_options_that_do_not_fit_are_refused(textdiffusion, tiny_run: MakeRun, words: tuple, says: str):
    done = textdiffusion("sample", tiny_run("mdlm"), *words)
    assert done.code == 2
    assert says in done.err
