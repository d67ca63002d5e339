"""What tokenizers lose: every character is counted, and what does not come back is paid for."""

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vocabularies import (
    TEXT,
    bert_like,
    by_expression,
    byte_level_bpe,
    composed,
    llama_like,
    with_spaces,
    without_unknown,
)
from textdiffusion import TextDiffusion
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import prepare
from textdiffusion.data.tokenizers import loading, subwords
from textdiffusion.data.tokenizers.base import UNK, Bytes, Characters, Tokenizer
from textdiffusion.data.tokenizers.losses import SIGNAL_BITS, encode_charged, measure_loss, spelling_bits
from textdiffusion.data.tokenizers.sentencepiece import SentencePiece
from textdiffusion.data.tokenizers.subwords import Subwords

TOKENIZERS: dict[str, Tokenizer] = {
    "characters": Characters(TEXT),
    "characters with [UNK]": Characters(TEXT, (UNK,)),
    "bytes": Bytes(),
    "words": subwords.train_words([TEXT], 0, ()),
    "bpe": subwords.train_bpe([TEXT], 300, ()),
    "wordpiece": subwords.train_wordpiece([TEXT], 160, (), TEXT),
    "sentencepiece": SentencePiece.train([TEXT], 350),
    "llama-like": llama_like(),
    "roberta-like": Subwords("file", byte_level_bpe(add_prefix_space=True)),
    "white space": with_spaces(),
    "composed": composed(),
    "by expression": by_expression(),
    "without unknown": without_unknown(),
    "bert-like": bert_like(),
}
LOSSLESS = ("bytes", "bpe", "white space", "by expression")

pieces = st.sampled_from(
    [
        *("The", " red", "  ", "\n\n", "\t", "    ", "\u00a0", "\u2028", "\x00", "(it)", "zebra", "x" * 101),
        *("\u00e9", "e\u0301", "\ufb01", "\u0130", "漢字", "👨\u200d👩", "שלום", "\ud800", "\ufffd"),
        *("##s", "\u2581", "[UNK]", "<unk>"),
    ]
)
texts = st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=6).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts)
@settings(max_examples=40)
def test_every_character_is_counted_and_what_is_lost_is_charged(name, text):
    tokenizer = TOKENIZERS[name]
    ids, counts, loss = encode_charged(tokenizer, text)
    counts = np.ones_like(ids) if counts is None else counts
    assert counts.sum() == len(text)
    assert (counts >= 0).all()
    assert len(ids) >= (len(text) > 0)
    if loss is None:
        assert tokenizer.decode(ids) == text or name in ("bert-like", "roberta-like")
    if loss is not None:
        assert loss.characters <= len(text)
        assert loss.bits.sum() >= 16
    if name in LOSSLESS:
        assert (loss is None) == ("\ud800" not in text)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts)
@settings(max_examples=40)
def test_tokens_and_the_charged_pieces_determine_the_text(name, text):
    """The code that is charged for: decode each group of tokens after the token before it, or read its piece."""
    tokenizer = TOKENIZERS[name]
    ids, counts, loss = encode_charged(tokenizer, text)
    if loss is None:
        return
    counts = np.ones_like(ids) if counts is None else counts
    starts = sorted({0, *np.flatnonzero(counts).tolist()})
    decoded, position = "", 0
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        size = int(counts[start:end].sum())
        original = text[position : position + size]
        if loss.bits[start]:
            announced = SIGNAL_BITS * (ids[start:end].tolist() != [tokenizer.unk_id])
            assert loss.bits[start] == announced + spelling_bits(original)
            decoded += original
        else:
            before = ids[start - 1 : start].tolist() if start else []
            decoded += tokenizer.added_text(before, ids[start:end].tolist())
        position += size
    assert decoded == text


def test_the_code_of_lost_characters_is_no_shorter_than_one_can_be():
    """Kraft's inequality: a code is possible only if 2^-bits add up to at most 1 over all texts."""
    alphabet = ["a", "b", "é", "€", "😀"]
    strings = ["".join(letters) for count in range(7) for letters in product(alphabet, repeat=count)]
    assert sum(2.0 ** -spelling_bits(string) for string in strings) < 1
    # All texts of one character, by the number of their bytes, with a model that gives every token 1/3 or 1/2.
    of_bytes = {1: 128, 2: 1920, 3: 63488 - 2048, 4: 1 << 20}
    for tokenizer in (Characters("ab", (UNK,)), Characters("ab")):
        total = 0.0
        for example, count in zip(("z", "é", "€", "😀"), of_bytes.values(), strict=True):
            loss = encode_charged(tokenizer, example).loss
            assert loss is not None
            unknown = count - 2 if example == "z" else count
            total += unknown * 2.0 ** -(math.log2(tokenizer.vocab_size) + float(loss.bits.sum()))
        total += 2 / tokenizer.vocab_size
        assert total <= 1 + 2.0**-SIGNAL_BITS
    byte_code = sum(count * 2.0 ** (-8 * (size + 1)) for size, count in of_bytes.items())
    assert byte_code < 1


def test_a_replaced_character_costs_its_spelling_on_top_of_its_stand_in(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"), device="cpu")
    text = "The r€d pear"
    lost, read = model.score([text, model.tokenizer.decode(model.tokenizer.encode(text))])
    assert lost.characters == read.characters == 12
    assert lost.total == pytest.approx(read.total + SIGNAL_BITS + 8 * 4, abs=1e-3)
    assert lost.lost_bits == pytest.approx((SIGNAL_BITS + 32) / 12)
    assert read.lost_bits == 0


def test_long_words_survive_a_wordpiece_of_our_own_and_are_charged_in_others(tmp_path):
    """A text without spaces, as in Thai, or a long address."""
    text = "abcdefgh" * 2000 + " the end"
    own = subwords.train_wordpiece([text], 60, (), text)
    ids, _, loss = encode_charged(own, text)
    assert own.decode(ids) == text
    assert loss is None
    bert = bert_like()
    _, _, loss = encode_charged(bert, "the " + "a" * 70_000)
    assert loss is not None
    assert loss.characters == 70_001
    assert loss.bits.sum() == 8 * (70_001 + 3)  # [UNK] announces them by itself, once in each part of 2^15 characters
    (tmp_path / "a.txt").write_text("the " + "a" * 70_000 + " the red grape" * 20)
    bert.save(tmp_path / "tokenizer.json")
    config = TextConfig(str(tmp_path / "a.txt"), tokenizer="file", tokenizer_path=str(tmp_path / "tokenizer.json"))
    config = TextConfig(**(vars(config) | {"length": 2, "valid_fraction": 0.0, "test_fraction": 0.0}))
    corpus = prepare(config, tmp_path / "cache")
    batch = corpus.train.windows(range(len(corpus.train)))
    assert batch.num_chars is not None
    assert batch.lost_bits is not None
    assert int(batch.num_chars.sum()) == 70_004 + 14 * 20
    assert float(batch.lost_bits.sum()) == 8 * (70_001 + 3)
    assert "loses 70,001 of 70,284 characters (99.60%)" in corpus.notes[0]


def test_a_vocabulary_without_an_unknown_token_charges_what_it_drops():
    _, counts, loss = encode_charged(without_unknown(), "a€b red zz")
    assert loss is not None
    assert loss.characters == 6  # €b with the space after it, zz with the d before it
    assert counts is not None
    assert counts.sum() == 10


def test_added_white_space_is_counted_once():
    tokenizer = with_spaces()
    text = "The    red  grape\n\nis" * 9
    ids, counts, loss = encode_charged(tokenizer, text)
    assert counts is not None
    assert (counts.sum(), loss) == (len(text), None)
    assert [tokenizer.token_text(int(i)) for i in ids[:3]] != []
    assert tokenizer.token_text(tokenizer.vocab_size - 1) == "\n\n"


def test_a_space_that_a_tokenizer_puts_before_a_text_is_no_loss():
    for name in ("llama-like", "roberta-like"):
        tokenizer = TOKENIZERS[name]
        ids, _, loss = encode_charged(tokenizer, "The red grape, oranges")
        assert (tokenizer.decode(ids), loss) == ("The red grape, oranges", None)
        assert tokenizer.decode([*ids, *tokenizer.encode_continuation("red")]) == "The red grape, orangesred"
        assert encode_charged(tokenizer, "\n  The  red").loss is None or name == "roberta-like"


def test_text_that_bert_has_no_token_for_counts_with_the_next(tmp_path):
    """A line break between documents has no token: it counts with the word after it."""
    for name, text in {"a": "the red", "b": "the grape", "c": "is"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    bert_like().save(tmp_path / "tokenizer.json")
    config = TextConfig(str(tmp_path), tokenizer="file", tokenizer_path=str(tmp_path / "tokenizer.json"), length=4)
    config = TextConfig(**(vars(config) | {"valid_fraction": 0.0, "test_fraction": 0.0}))
    corpus = prepare(config, tmp_path / "cache")
    assert UNK not in [corpus.tokenizer.token_text(int(i)) for i in corpus.train.shard.tokens]
    assert corpus.train.shard.header.chars == len("the red\nthe grape\nis")
    assert encode_charged(bert_like(), " \n").ids.tolist() == [1]


def test_runs_of_earlier_versions_are_read(tiny_run):
    folder = tiny_run("mdlm")
    config = json.loads((folder / "config.json").read_text())
    assert "unk" not in config["text"]
    config["text"]["unk"] = True
    (folder / "config.json").write_text(json.dumps(config))
    assert TextDiffusion.from_pretrained(folder, device="cpu").config.text.tokenizer == "characters"


def test_the_loss_of_a_saved_tokenizer_is_that_of_the_original(tmp_path):
    for name, tokenizer in TOKENIZERS.items():
        tokenizer.save(tmp_path / "tokenizer.json")
        again = loading.load(tmp_path / "tokenizer.json")
        text = "Thé  red\n"
        mine, other = encode_charged(tokenizer, text), encode_charged(again, text)
        assert np.array_equal(mine.ids, other.ids), name
        assert (measure_loss(again, text, *again.encode_counted(text)) is None) == (mine.loss is None)
