"""Tokenizer, layout and length chosen from the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.data.choices import choose, stands_alone
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import prepare

SENTENCES = [f"The {a} {b} is {c}." for a in ("red", "old") for b in ("fig", "plum", "pear") for c in ("ripe", "sweet")]
PROSE = (
    "It was a bright cold day in April, and the clocks were striking when the man came home, tired of the\n"
    "long walk and of the wind that blew the dust through the glass doors of the house, though not fast\n"
    "enough to keep a whirl of it from coming in with him. The hall smelt of cabbage and of old mats. At\n"
    "one end of it a poster, too large for indoor display, had been put on the wall, and he looked up at\n"
)
DIALOGUE = "ANNA:\nWho is there?\n\nBORIS:\nNobody, my lord, but\nthe wind.\n\n"
CODE = "def double(x):\n    return 2 * x\n\n\nclass Pair:\n    left: int\n    right: int\n\n"


def chosen(path: Path, **settings: Any) -> TextConfig:
    undecided: dict[str, Any] = {"tokenizer": "auto", "layout": "auto", "length": 0, **settings}
    return choose(TextConfig(data=str(path), **undecided), path.parent)[0]


def written(folder: Path, text: str, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "layout", "tokenizer", "vocab_size", "length"),
    [
        ("\n".join(SENTENCES * 300), "lines", "words", 0, 8),  # 5 words, a full stop and the end
        (PROSE * 200, "stream", "bpe", 512, 128),
        (PROSE * 2000, "stream", "bpe", 1024, 128),
        (DIALOGUE * 3000, "stream", "bpe", 512, 128),
        (CODE * 2000, "stream", "bpe", 512, 128),
        ("ACGT" * 40_000, "stream", "characters", 0, 128),
        ("\n".join(["emma", "olivia", "ava", "isabella"] * 4000), "lines", "characters", 0, 16),
        (PROSE, "stream", "characters", 0, 128),  # too short to learn pieces of words
        ("one line only", "stream", "characters", 0, 128),
    ],
)
def test_what_suits_a_text(text, layout, tokenizer, vocab_size, length, tmp_path: Path):
    config = chosen(written(tmp_path, text))
    assert (config.layout, config.tokenizer, config.vocab_size) == (layout, tokenizer, vocab_size)
    assert config.length == length
    assert config.model_padding == (layout != "stream")


def test_records_are_documents_and_long_ones_running_text(tmp_path: Path):
    short = written(tmp_path, "\n".join(json.dumps({"t": each}) for each in SENTENCES * 9), "short.jsonl")
    assert chosen(short, field="t").layout == "documents"
    long = written(tmp_path, "\n".join(json.dumps({"t": PROSE * 9}) for _ in range(40)), "long.jsonl")
    assert chosen(long, field="t").layout == "stream"
    labelled = written(tmp_path, "\n".join(json.dumps({"t": "a b.", "k": "x"}) for _ in range(9)), "few.jsonl")
    assert chosen(labelled, field="t", label="k").layout == "documents"


def test_examples_longer_than_a_window_are_read_as_running_text(tmp_path: Path):
    path = written(tmp_path, "\n".join(f"{'word and more ' * 400}end." for _ in range(50)))
    assert chosen(path).layout == "stream"
    assert chosen(path, layout="lines", tokenizer="words").length > 1000  # as asked


def test_what_is_set_stays(tmp_path: Path):
    path = written(tmp_path, "\n".join(SENTENCES * 300))
    config = chosen(path, tokenizer="bytes", length=40)
    assert (config.tokenizer, config.layout, config.length) == ("bytes", "lines", 40)
    settled = TextConfig(data=str(path))
    assert choose(settled, tmp_path) == (settled, "")


def test_the_message_names_choices_reasons_and_options(tmp_path: Path):
    path = written(tmp_path, "\n".join(SENTENCES * 300))
    _, message = choose(TextConfig(data=str(path), tokenizer="auto", layout="auto", length=0), tmp_path)
    assert message.splitlines() == [
        "Chosen from the text (--tokenizer, --layout, --length change it):",
        "  tokens are words (9 different words)",
        "  read as one example per line (each line stands alone)",
        "  windows of 8 tokens (99 % of the examples fit)",
    ]


def test_preparing_chooses_and_records_it(tmp_path: Path):
    path = written(tmp_path, "\n".join(SENTENCES * 300))
    corpus = prepare(TextConfig(data=str(path), tokenizer="auto", layout="auto", length=0), tmp_path / "cache")
    assert (corpus.config.tokenizer, corpus.config.layout, corpus.config.length) == ("words", "lines", 8)
    assert corpus.train.windows([0]).tokens.shape == (1, 8)


@given(lines=st.lists(st.text("ab .,\n", max_size=9), max_size=60))
def test_any_lines_are_judged(lines: list[str]):
    assert stands_alone(lines) in (True, False)


@given(text=st.text(max_size=200))
def test_any_text_has_a_choice(text: str, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("any") / "text.txt"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    if "\x00" not in text and text.isprintable():
        config = chosen(path)
        assert "auto" not in (config.tokenizer, config.layout)
        assert config.length >= 8
