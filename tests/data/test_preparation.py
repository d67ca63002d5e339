"""Preparing: splits, tokenizers that read any text, atomic, shared by processes, reused."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data.config import TextConfig, TokenizerKind
from textdiffusion.data.prepare import Corpus, default_cache, prepare
from textdiffusion.data.tokenizers.base import UNK, Characters, fingerprint


def texts(corpus: Corpus) -> list[str | None]:
    parts = (corpus.train, corpus.valid, corpus.test)
    return [None if part is None else corpus.tokenizer.decode(part.shard.tokens) for part in parts]


def small(path: Path, **options) -> TextConfig:
    return replace(TextConfig(data=str(path), length=2), **options)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in {"a": "aaaa\n", "b": "abab\n", "c": "baba\n", "d": "bbbb\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def test_parts_by_file_and_by_document(folder):
    cache = folder / "cache"
    options = {"valid_fraction": 0.2, "test_fraction": 0.3}
    for split in ("files", "documents"):
        assert texts(prepare(small(folder, split=split, **options), cache)) == ["aaaa\nabab\n", "baba\n", "bbbb\n"]
    cut = prepare(small(folder, **options), cache)
    assert texts(cut) == ["aaaa\nabab\n", "baba", "\nbbbb\n"]
    with pytest.raises(UserError, match=r"has too few files \(1\) for 3 parts"):
        prepare(small(folder / "b.txt", split="files"), cache)


def test_held_out_text_of_its_own(folder):
    config = small(folder / "b.txt", valid=str(folder / "a.txt"), test_fraction=0.0)
    corpus = prepare(config, folder / "cache")
    assert texts(corpus) == ["abab\n", "aaaa\n", None]
    both = replace(config, test=str(folder / "d.txt"), test_fraction=0.5)
    assert texts(prepare(both, folder / "cache")) == ["abab\n", "aaaa\n", "bbbb\n"]


@pytest.mark.parametrize("kind", get_args(TokenizerKind))
def test_no_text_is_refused_for_a_character_of_its_test_part(tmp_path, kind):
    """Every tokenizer reads it, and the parts together have all characters of the text."""
    path = tmp_path / "a.txt"
    text = "the pear is old and the fig is red\n" * 60 + "the pear is old \u2665 and caf\u00e9-zebra\n"
    path.write_text(text, encoding="utf-8")
    options: dict[str, dict[str, Any]] = {
        "bpe": {"vocab_size": 300},
        "wordpiece": {"vocab_size": 100},
        "sentencepiece": {"vocab_size": 310},
    }
    Characters("the paris old and fig").save(tmp_path / "tokenizer.json")
    options["file"] = {"tokenizer_path": str(tmp_path / "tokenizer.json")}
    config = small(path, tokenizer=kind, length=16, **options.get(kind, {}))
    corpus = prepare(config, tmp_path / "cache")
    assert sum(corpus.part(name).shard.header.chars for name in ("train", "valid", "test")) == len(text)
    lost = sum(note.startswith("test: the tokenizer loses") for note in corpus.notes)
    assert lost == (kind in ("words", "file"))
    batch = corpus.part("test").windows(range(len(corpus.part("test"))))
    assert (batch.lost_bits is not None) == lost
    if not lost:
        assert "".join(map(str, texts(corpus))) == text


def test_characters_come_from_all_parts_and_words_from_the_training_part(folder):
    (folder / "e.txt").write_text("abcabcabcabcabcabcabcabcabcabcabcabX")
    corpus = prepare(small(folder / "e.txt"), folder / "cache")
    assert corpus.tokenizer.vocab_size == 4
    assert texts(corpus)[2] == "bX"
    separate = prepare(small(folder / "a.txt", test=str(folder / "e.txt")), folder / "cache")
    assert separate.tokenizer.vocab_size == 5  # a, line break, b, c, X and no more
    words = prepare(small(folder / "e.txt", tokenizer="words", test=str(folder / "b.txt")), folder / "cache")
    assert UNK in [words.tokenizer.token_text(i) for i in words.part("test").shard.tokens.tolist()]
    assert "abab" not in [words.tokenizer.token_text(i) for i in range(words.tokenizer.vocab_size)]


def test_a_tokenizer_that_exists_is_used(folder):
    all_of = {"valid_fraction": 0.0, "test_fraction": 0.0}
    first = prepare(small(folder / "b.txt", **all_of), folder / "cache")
    other = prepare(small(folder / "a.txt", **all_of), folder / "cache", tokenizer=first.tokenizer)
    assert fingerprint(other.tokenizer) == fingerprint(first.tokenizer)
    assert other.folder != prepare(small(folder / "a.txt", **all_of), folder / "cache").folder


def test_held_out_examples_that_are_trained_on_are_counted(tmp_path):
    """Whole examples, as often as they are held out; a source is part of them, and part of a line is none."""
    (tmp_path / "a.txt").write_text("one\ntwo\ntwo\nthree\n" * 2)
    (tmp_path / "b.txt").write_text("two\ntwo\nthre\nfour\none\n")
    (tmp_path / "c.txt").write_text("four\n")
    config = TextConfig(data=str(tmp_path / "a.txt"), layout="lines", length=8, valid=str(tmp_path / "b.txt"))
    config = replace(config, test=str(tmp_path / "c.txt"))
    for _ in range(2):  # made, and found again
        notes = prepare(config, tmp_path / "cache").notes
        assert notes == ("valid: 3 of 5 examples are also in the training part",)
    (tmp_path / "a.csv").write_text("de,en\neins,one\nzwei,two\n")
    (tmp_path / "b.csv").write_text("de,en\neins,one\nuno,one\n")
    pairs = replace(config, data=str(tmp_path / "a.csv"), valid=str(tmp_path / "b.csv"), test="", test_fraction=0.0)
    pairs = replace(pairs, field="en", source="de", length=12, layout="documents")
    assert prepare(pairs, tmp_path / "cache").notes == ("valid: 1 of 2 examples are also in the training part",)


def test_the_small_language_repeats_itself(tmp_path, data):
    """The corpora's own count: 178 of 500 held-out sentences are trained on."""
    path = data / "corpora/mtd_simple_train.txt"
    config = TextConfig(data=str(path), layout="lines", length=64, test_fraction=0.0, valid_fraction=0.0)
    corpus = prepare(replace(config, test=str(data / "corpora/mtd_simple_test.txt")), tmp_path)
    assert corpus.notes == ("test: 178 of 500 examples are also in the training part",)


def test_a_stream_of_words_is_cut_between_words(tmp_path):
    text = " ".join(f"number{i % 10}" for i in range(300))
    (tmp_path / "a.txt").write_text(text)
    corpus = prepare(small(tmp_path / "a.txt", tokenizer="words"), tmp_path / "cache")
    train, valid, test = map(str, texts(corpus))
    assert train + valid + test == text
    assert valid[0] == test[0] == " "


@pytest.mark.parametrize("layout", ["stream", "lines", "documents"])
@pytest.mark.parametrize("text", ["a", "abc", "word", "one line of words\n", "a\nb\nc\n"])
def test_however_little_text(tmp_path, text, layout):
    """Too little text for a test part goes to the other parts, and of one unit all is for training."""
    (tmp_path / "a.txt").write_text(text)
    corpus = prepare(small(tmp_path / "a.txt", tokenizer="bytes", layout=layout, length=16), tmp_path / "cache")
    units = len(text) if layout == "stream" else len(text.splitlines()) if layout == "lines" else 1
    assert (corpus.valid is None) == (units == 1)
    if units < 18:
        assert corpus.test is None
        assert any("too short to hold out text: it has no" in note for note in corpus.notes)
        with pytest.raises(UserError, match="has no test part: it is too short"):
            corpus.part("test")
    ids = [part.shard.tokens for part in (corpus.train, corpus.valid) if part is not None]
    kept = np.concatenate(ids)
    kept = kept[kept != corpus.tokenizer.end_id] if layout != "stream" else kept
    assert corpus.tokenizer.decode(kept).replace("\n", "") == text.replace("\n", "")
    corpus.train.batch(0, range(3), batch_size=3)


def test_a_text_that_can_be_split_is_split_as_ever(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 40)
    corpus = prepare(small(tmp_path / "a.txt"), tmp_path / "cache")
    assert [len(corpus.part(name).shard) for name in ("train", "valid", "test")] == [36, 2, 2]


def test_processes_may_prepare_at_the_same_time(folder):
    with ThreadPoolExecutor(4) as pool:
        folders = {c.folder for c in pool.map(lambda _: prepare(small(folder), folder / "cache"), range(8))}
    assert len(folders) == 1
    assert {path.name for path in (folder / "cache").iterdir()} == {path.name for path in folders} | {"texts"}


def test_where_prepared_text_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TEXTDIFFUSION_CACHE", raising=False)
    assert default_cache() == tmp_path / "textdiffusion"
    monkeypatch.setenv("TEXTDIFFUSION_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"


@pytest.mark.parametrize("kind", ["bytes", "words", "bpe", "wordpiece", "sentencepiece"])
def test_every_kind_of_tokenizer(tmp_path, kind):
    text = "".join(f"the {i % 7} words of line {i % 10}, and so on.\n" for i in range(300))
    (tmp_path / "a.txt").write_text(text)
    size = {"bpe": 300, "wordpiece": 100, "sentencepiece": 300}.get(kind, 0)
    config = TextConfig(data=str(tmp_path / "a.txt"), tokenizer=kind, vocab_size=size, length=32)
    corpus = prepare(config, tmp_path / "cache")
    assert "".join(map(str, texts(corpus))) == text
    chars = [corpus.part(name).shard.header.chars for name in ("train", "valid", "test")]
    assert sum(chars) == len(text)
    if kind != "words":  # which are not cut in two
        assert chars[0] == int(0.9 * len(text))
        assert chars[2] == len(text) - int(0.95 * len(text))
    reopened = prepare(config, tmp_path / "cache")
    assert fingerprint(reopened.tokenizer) == fingerprint(corpus.tokenizer)


def test_a_vocabulary_from_a_file(tmp_path, data):
    (tmp_path / "a.txt").write_text("Hello world, this is a text.\n" * 50)
    path = str(tmp_path / "a.txt")
    config = TextConfig(data=path, tokenizer="file", tokenizer_path=str(data / "tokenizers/gpt2"), length=16)
    gpt2 = prepare(config, tmp_path / "cache")
    assert gpt2.tokenizer.vocab_size == 50257
    lines = replace(config, tokenizer_path=str(data / "tokenizers/bert"), layout="lines")
    bert = prepare(lines, tmp_path / "cache")
    assert bert.train.windows([0]).num_chars is not None
    assert bert.tokenizer.decode(bert.train.windows([0]).tokens[0]) == "hello world, this is a text."


def test_tinyshakespeare_is_cut_where_everybody_cuts_it(tmp_path, data):
    path = data / "corpora/tinyshakespeare.txt"
    config = TextConfig(data=str(path), valid_fraction=0.0, test_fraction=0.1)
    corpus = prepare(config, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert texts(corpus) == [text[:1_003_854], None, text[1_003_854:]]
    assert corpus.tokenizer.vocab_size == 65


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "chars"}, "tokenizer is 'chars'; it can be auto, characters, bytes"),
        ({"layout": "rows"}, "layout is 'rows'"),
        ({"normaliser": "upper"}, "normaliser is 'upper'; it can be none, lower, text8"),
        ({"mask": "half"}, "mask is 'half'"),
        ({"length": 1}, "at least 2 tokens"),
        ({"data": ""}, "data is empty"),
        ({"limit": -1}, "limit is -1"),
        ({"valid_fraction": 1.0}, r"valid_fraction is 1.0; it must be in \[0, 1\)"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "add up to 1"),
        ({"tokenizer": "file"}, "go together"),
        ({"tokenizer_path": "x.json"}, "go together"),
        ({"vocab_size": 100}, "vocab_size has no effect on tokenizer=characters"),
        ({"subword_sampling": 0.1}, "subword_sampling needs tokenizer=sentencepiece"),
        ({"packing": True}, "packing needs layout=lines"),
        ({"model_padding": True}, "model_padding needs layout=lines"),
        ({"too_long": "error"}, "too_long=error needs layout=lines"),
        ({"packing": True, "model_padding": True, "layout": "lines"}, "exclude each other"),
        ({"hub_config": "x"}, "hub_config has no effect on data=shakespeare"),
    ],
)
def test_a_configuration_that_cannot_be(options, message):
    config = TextConfig()
    for name, value in options.items():  # past the tests' type check, which would speak first
        object.__setattr__(config, name, value)
    with pytest.raises(UserError, match=message):
        config.__post_init__()
