"""Training on conversations: the run keeps its template, resumes, and hands it on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.config.config import Config
from textdiffusion.data.chat import PLAIN, named_template

from .runs import run
from .tiny import tiny

TURN = "{{ m.content }}{{ '?' if m.role == 'user' else eos_token }}"
TEMPLATE = f"{{% for m in messages %}}{TURN}{{% endfor %}}"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    talk = [{"role": "user", "content": "a man"}, {"role": "assistant", "content": "a plan"}]
    (tmp_path / "talks.jsonl").write_text((json.dumps({"talk": talk}) + "\n") * 60)
    config = tiny("mdlm", tmp_path, steps=2, eval_every=2)
    text = replace(config.text, data=str(tmp_path / "talks.jsonl"), messages="talk", layout="documents", length=32)
    return replace(config, text=replace(text, model_padding=True))


def test_a_run_answers_with_the_template_it_learned(config: Config, tmp_path: Path):
    run(config, tmp_path / "plain", tmp_path)
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    own = replace(config, text=replace(config.text, chat_template=str(tmp_path / "t.jinja")))
    run(own, tmp_path / "own", tmp_path)
    (tmp_path / "t.jinja").unlink()
    for name, source in (("plain", PLAIN), ("own", TEMPLATE)):
        model = TextDiffusion.from_pretrained(tmp_path / name)
        assert model.chat_template is not None
        assert model.chat_template.source == source
        batch = model.chat_batch("a man")
        start = int(batch.text_starts[0])  # pyrefly: ignore[unsupported-operation]
        assert model.tokenizer.decode(batch.tokens[0, :start]) == ("a man?" if name == "own" else "user:\na man")
        assert isinstance(model.chat("a man")[0], str)


def test_a_run_is_resumed_and_others_start_from_its_template(config: Config, tmp_path: Path):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    own = replace(config, text=replace(config.text, chat_template=str(tmp_path / "t.jinja")))
    run(own, tmp_path / "base", tmp_path)
    longer = replace(config, training=replace(config.training, steps=3))
    assert run(longer, tmp_path / "base", tmp_path).step == 3
    run(config, tmp_path / "next", tmp_path, init=tmp_path / "base")
    assert named_template(str(tmp_path / "next")).source == TEMPLATE
    assert run(longer, tmp_path / "next", tmp_path, init=tmp_path / "base").step == 3
