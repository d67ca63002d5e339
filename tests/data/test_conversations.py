"""Conversations as training data: what is given, what is learned, and what shares a row."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data.chat import CHATML, ChatTemplate, Message
from textdiffusion.data.choices import choose
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import Corpus, prepare

TALKS = [
    [("user", "copy abc"), ("assistant", "abc")],
    [("system", "short"), ("user", "copy b"), ("assistant", "b"), ("user", "again"), ("assistant", "bb")],
    [("user", "reverse ab"), ("assistant", "ba")],
    [("user", "nothing"), ("assistant", " ")],
] * 6


def records(talks: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"talk": [{"role": role, "content": content} for role, content in talk]} for talk in talks]


@pytest.fixture
def config(tmp_path: Path) -> TextConfig:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(TALKS)))
    return TextConfig(
        data=str(tmp_path / "t.jsonl"),
        messages="talk",
        layout="documents",
        length=96,
        model_padding=True,
        valid_fraction=0.2,
        test_fraction=0.0,
    )


def shown(corpus: Corpus, windows: Sequence[int] = range(4)) -> list[tuple[str, str]]:
    """The given and the learned text of windows of the training part, ends and padding included."""
    batch = corpus.train.windows(list(windows))
    assert batch.condition_mask is not None
    names = {corpus.tokenizer.end_id: "$", corpus.tokenizer.pad_id: "_"}

    def text(ids: Sequence[int]) -> str:
        return "".join(names.get(id) or corpus.tokenizer.token_text(id) for id in ids)

    pairs = zip(batch.tokens, batch.condition_mask, strict=True)
    return [(text(row[given].tolist()), text(row[~given].tolist())) for row, given in pairs]


def test_every_answer_is_learned_after_what_precedes_it(config: TextConfig, tmp_path: Path):
    rows = shown(prepare(config, tmp_path / "cache"))
    before = "system:\nshort$\nuser:\ncopy b$\nassistant:\n"
    expected = [
        ("user:\ncopy abc$\nassistant:\n", "abc$"),
        (before, "b$"),
        (before + "b$\nuser:\nagain$\nassistant:\n", "bb$"),
        ("user:\nreverse ab$\nassistant:\n", "ba$"),
    ]
    assert [(given, learned.rstrip("_")) for given, learned in rows] == expected
    assert all(len(given + learned) == 96 for given, learned in rows)  # padding is learned too


def test_the_answers_of_a_conversation_are_in_one_part(config: TextConfig, tmp_path: Path):
    for fraction in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5):
        corpus = prepare(replace(config, valid_fraction=fraction), tmp_path / "cache")
        answers = [learned for _, learned in shown(corpus, range(len(corpus.train)))]
        ends = [answer.rstrip("_") for answer in answers]
        assert ends.count("b$") == ends.count("bb$")
        assert corpus.valid is not None
        assert len(corpus.train) + len(corpus.valid) == 24  # blank answers are left out


def test_a_question_and_its_answer_are_a_conversation(config: TextConfig, tmp_path: Path):
    pairs = [(talk[0][1], talk[1][1]) for talk in (TALKS[0], TALKS[2])] * 9
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ask", "say"), *pairs])
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{{ '=' if m.role == 'user' else eos_token }}{% endfor %}"
    )
    columns = replace(config, data=str(tmp_path / "p.csv"), messages="", field="say", source="ask", length=20)
    corpus = prepare(replace(columns, chat_template=str(tmp_path / "t.jinja")), tmp_path / "cache")
    assert shown(corpus, [0, 1]) == [("copy abc=", "abc$_______"), ("reverse ab=", "ba$______")]
    assert shown(prepare(columns, tmp_path / "cache"), [0]) == [("copy abc$", "abc$_______")]


def test_conversations_in_csv_are_json(config: TextConfig, tmp_path: Path):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("talk",), *((json.dumps(record["talk"]),) for record in records(TALKS))])
    expected = shown(prepare(config, tmp_path / "cache"))
    assert shown(prepare(replace(config, data=str(tmp_path / "t.csv")), tmp_path / "cache")) == expected


def test_packed_answers_see_their_own_messages_alone(config: TextConfig, tmp_path: Path):
    alone = shown(prepare(config, tmp_path / "cache"), range(4))
    corpus = prepare(replace(config, packing=True, model_padding=False, length=128), tmp_path / "cache")
    batch = corpus.train.windows(range(len(corpus.train)))
    assert batch.condition_mask is not None
    assert batch.segment_ids is not None
    assert batch.valid_mask is not None
    assert len(corpus.train) < 16
    found, paddings = set(), set()
    for tokens, given, segments, valid in zip(
        batch.tokens, batch.condition_mask, batch.segment_ids, batch.valid_mask, strict=True
    ):
        for segment in segments[valid].unique():
            inside = segments == segment
            ids = tokens[inside].tolist()
            count = int(given[inside].sum())
            assert given[inside].tolist() == [i < count for i in range(len(ids))]
            found.add((corpus.tokenizer.decode(ids[count:]), count))
            assert 0 <= ids.count(corpus.tokenizer.pad_id) <= 32
            paddings.add(ids.count(corpus.tokenizer.pad_id))
    assert len(paddings) > 3  # so that no number of masks tells where an answer ends
    assert found == {(learned.rstrip("_$"), len(given)) for given, learned in alone}


def test_the_special_tokens_of_a_template_are_tokens(config: TextConfig, tmp_path: Path):
    from tests.data.test_chat import chatml_tokenizer

    tokenizer = chatml_tokenizer()
    corpus = prepare(replace(config, tokenizer="auto", chat_template="chatml"), tmp_path / "cache", tokenizer=tokenizer)
    batch = corpus.train.windows([0])
    assert batch.condition_mask is not None
    given = batch.tokens[0][batch.condition_mask[0]].numpy()
    template = ChatTemplate(CHATML)
    assert np.array_equal(given, template.encode([Message("user", "copy abc")], tokenizer))
    learned = batch.tokens[0][~batch.condition_mask[0]].tolist()
    end = [tokenizer.special_tokens["<|im_end|>"], tokenizer.end_id]
    assert learned[: len(learned) - learned.count(tokenizer.pad_id)] == [*tokenizer.encode("abc"), *end]


def test_the_text_chooses_windows_for_conversations(config: TextConfig, tmp_path: Path):
    open_ = replace(config, layout="auto", length=0, tokenizer="auto", model_padding=False)
    chosen, message = choose(open_, tmp_path / "cache")
    assert (chosen.layout, chosen.model_padding) == ("documents", True)
    assert 64 <= chosen.length <= 96
    assert "each record has messages" in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layout": "lines"}, "messages needs layout=documents"),
        ({"field": "a"}, "leave field and source empty"),
        ({"messages": "", "chat_template": "plain"}, "chat_template needs messages, or source and field"),
        ({"messages": "tlak"}, "no field 'tlak'"),
        ({"messages": ""}, r"text.messages, if it holds conversations"),
        ({"chat_template": "nothing"}, "no chat template 'nothing'"),
        ({"length": 8}, "No example of .* fits"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: TextConfig, changes: dict, says: str, tmp_path: Path):
    with pytest.raises(UserError, match=says):
        prepare(replace(config, **changes), tmp_path / "cache")


def test_records_that_are_no_conversation_are_refused_by_line(config: TextConfig, tmp_path: Path):
    path = Path(config.data)
    path.write_text('{"talk": [{"role": "user"}]}\n' + path.read_text())
    with pytest.raises(UserError, match=r"line 1: field 'talk' has a message that is not an .*skip_bad=true"):
        prepare(config, tmp_path / "cache")
    notes = prepare(replace(config, skip_bad=True), tmp_path / "cache").notes
    assert any("1 bad records" in note for note in notes)
