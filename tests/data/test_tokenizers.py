"""Every tokenizer: exact round trips, characters counted, saved and loaded alike."""

import io
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers

from textdiffusion.core.errors import UserError
from textdiffusion.data.tokenizers import loading, subwords
from textdiffusion.data.tokenizers.base import END, PAD, UNK, Bytes, Characters, Tokenizer, fingerprint
from textdiffusion.data.tokenizers.loading import load
from textdiffusion.data.tokenizers.losses import SIGNAL_BITS, measure_loss
from textdiffusion.data.tokenizers.sentencepiece import SentencePiece
from textdiffusion.data.tokenizers.unigram import sample_segmentation

TEXT = """The orange  grape is stir-fried, don't you think?
A naïve Café in 漢字 and 😀 costs £ 10.50 - or [END] more ##s.

\tAll the oranges are grapes; all the grapes are oranges.
"""
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)  # all but surrogates


def tokenizers(specials=()) -> dict[str, Tokenizer]:
    return {
        "characters": Characters(TEXT, specials),
        "bytes": Bytes(specials),
        "words": subwords.train_words([TEXT], 0, specials),
        "bpe": subwords.train_bpe([TEXT], 300, specials),
        "wordpiece": subwords.train_wordpiece([TEXT], 160, specials, TEXT),
        "sentencepiece": SentencePiece.train([TEXT], 400, specials),
    }


def counted(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and counts of a tokenizer whose tokens are not one character each."""
    ids, counts = tokenizer.encode_counted(text)
    assert counts is not None
    return ids, counts


PLAIN = tokenizers()
ENDED = tokenizers((END, PAD))


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("of", [PLAIN, ENDED], ids=["plain", "ended"])
def test_round_trip_and_counts_of_the_training_text(kind, of):
    tokenizer = of[kind]
    ids, counts = tokenizer.encode_counted(TEXT)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.kind == kind
    assert tokenizer.decode(ids) == TEXT
    assert len(ids) == len(TEXT) if counts is None else (len(counts), counts.sum()) == (len(ids), len(TEXT))
    assert ids.dtype == np.int64
    assert 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    assert np.array_equal(ids, tokenizer.encode(TEXT))
    assert tokenizer.encode("").size == 0
    assert tokenizer.decode([]) == ""


@given(unicode_text)
def test_bytes_and_byte_level_bpe_round_trip_any_text(text):
    for tokenizer in (PLAIN["bytes"], ENDED["bytes"], PLAIN["bpe"], ENDED["bpe"]):
        ids, counts = counted(tokenizer, text)
        assert tokenizer.decode(ids) == text
        assert counts.sum() == len(text)


@given(unicode_text)
def test_characters_round_trip_any_text(text):
    for specials in ((), (END, PAD, UNK)):
        tokenizer = Characters(text, specials)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.vocab_size == len(set(text)) + len(specials)


@given(unicode_text.filter(lambda text: "\u2581" not in text))
def test_sentencepiece_trained_here_round_trips(text):
    ids, counts = counted(PLAIN["sentencepiece"], text)
    assert PLAIN["sentencepiece"].decode(ids) == text
    assert counts.sum() == len(text)


@pytest.mark.parametrize("kind", PLAIN)
def test_special_tokens_exist_only_where_asked_for(kind):
    plain, ended = PLAIN[kind], ENDED[kind]
    assert plain.end_id is None
    assert plain.pad_id is None
    assert ended.end_id is not None
    assert ended.pad_id is not None
    if kind not in ("bpe", "wordpiece", "sentencepiece"):  # of a given size
        assert ended.vocab_size == plain.vocab_size + 2
    content = ended.encode(" the oranges are grapes")
    assert ended.decode([*content, ended.end_id, *content, ended.pad_id]) == " the oranges are grapes"
    # Text that spells a special token is not one.
    assert ended.end_id not in ended.encode(TEXT)
    assert ended.token_text(ended.end_id) == END


@pytest.mark.parametrize("kind", PLAIN)
def test_saved_as_readable_json_and_loaded_alike(kind, tmp_path):
    for tokenizer in (PLAIN[kind], ENDED[kind]):
        path = tmp_path / "tokenizer.json"
        tokenizer.save(path)
        assert json.loads(path.read_text(encoding="utf-8"))["kind"] == kind
        again = load(path)
        assert fingerprint(again) == fingerprint(tokenizer)
        assert np.array_equal(again.encode(TEXT), tokenizer.encode(TEXT))
        assert (again.vocab_size, again.end_id, again.pad_id) == (
            tokenizer.vocab_size,
            tokenizer.end_id,
            tokenizer.pad_id,
        )


@pytest.mark.parametrize("kind", ["words", "bpe", "wordpiece", "sentencepiece"])
def test_learning_is_deterministic(kind):
    assert fingerprint(tokenizers((END, PAD))[kind]) == fingerprint(ENDED[kind])


def test_asked_vocabulary_size_includes_special_tokens():
    assert PLAIN["bpe"].vocab_size == ENDED["bpe"].vocab_size == 300
    assert ENDED["wordpiece"].vocab_size == 160
    with pytest.raises(UserError, match="byte-level BPE needs at least 256"):
        subwords.train_bpe([TEXT], 200, ())
    with pytest.raises(UserError, match="alone need"):
        subwords.train_wordpiece([TEXT], 50, (), TEXT)


def test_tokens_are_shown_as_text():
    shown = {kind: [t.token_text(int(i)) for i in t.encode("grape é")] for kind, t in PLAIN.items() if kind != "words"}
    assert shown["characters"] == list("grape é")
    assert shown["bytes"] == [*"grape ", "\\xc3", "\\xa9"]
    assert "".join(shown["bpe"]) in ("grape é", "grape \\xc3\\xa9")


def test_a_similar_character_stands_in_for_an_unknown_one():
    tokenizer = Characters("abce .-'\n")
    for unknown, like in {
        "A": "a",
        "\u00e9": "e",
        "\u2014": "-",
        "\u2019": "'",
        "\u00a0": " ",
        "\u2028": "\n",
        "\U0001f350": ".",
        "\u4e2d": "e",
        "\x07": " ",
        "\ud800": ".",
    }.items():
        assert tokenizer.decode(tokenizer.encode(f"a{unknown}b")) == f"a{like}b"
    assert tokenizer.encode("X").size == 1
    with pytest.raises(UserError, match="no characters"):
        Characters("").encode("a")
    with_unk = Characters("abc", (UNK,))  # as runs of earlier versions have it
    assert with_unk.decode(with_unk.encode("aX\U0001f350b")) == "a\ufffd\ufffdb"


def test_unseen_words_are_unknown():
    tokenizer = PLAIN["words"]
    ids, counts = counted(tokenizer, "The orange zebra")
    assert [tokenizer.token_text(int(i)) for i in ids] == ["The", " orange", UNK]
    assert counts.tolist() == [3, 7, 6]
    assert subwords.train_words([TEXT], 10, (END, PAD)).vocab_size == 10


def test_words_without_an_unknown_token_read_any_text(tmp_path):
    """As runs of earlier versions have them."""
    saved = PLAIN["words"].to_dict()
    vocabulary = [word for word in saved["tokenizer"]["model"]["vocab"] if word != UNK]
    saved["tokenizer"]["model"]["vocab"] = {word: i for i, word in enumerate(vocabulary)}
    saved["tokenizer"]["added_tokens"] = []
    tokenizer = loading.from_dict(saved)
    assert tokenizer.unk_id is None
    text = "The zebra orange, or lion"
    ids, counts = counted(tokenizer, text)
    assert counts.sum() == len(text)
    assert tokenizer.decode(ids) == "The. orange, or."
    loss = measure_loss(tokenizer, text, ids, counts)
    assert loss is not None
    assert loss.bits[loss.bits > 0].tolist() == [SIGNAL_BITS + 8 * 7, SIGNAL_BITS + 8 * 6]


def test_the_token_of_what_a_vocabulary_lacks():
    assert [kind for kind in PLAIN if PLAIN[kind].unk_id is not None] == ["words", "wordpiece", "sentencepiece"]
    for tokenizer, text in (
        (Characters("abc", (UNK,)), "X"),
        (PLAIN["words"], "zebra"),
        (PLAIN["wordpiece"], "\u0416"),
    ):
        assert tokenizer.encode(text).tolist() == [tokenizer.unk_id]


def test_segmentations_are_sampled_by_seed():
    tokenizer = PLAIN["sentencepiece"]
    assert isinstance(tokenizer, SentencePiece)
    text = "All the oranges are grapes"
    sampled = [tuple(tokenizer.encode_sampled(text, alpha=0.3, seed=seed).tolist()) for seed in range(20)]
    again = [tuple(tokenizer.encode_sampled(text, alpha=0.3, seed=seed).tolist()) for seed in reversed(range(20))]
    assert sampled == again[::-1]
    assert len(set(sampled)) > 3
    assert {tokenizer.decode(ids) for ids in sampled} == {text}


def segmentations(text: str, pieces: dict[str, float]) -> dict[tuple[str, ...], float]:
    """All segmentations of a text and their log-probabilities."""
    if not text:
        return {(): 0.0}
    prefixes = [text[:end] for end in range(1, len(text) + 1) if text[:end] in pieces]
    return {
        (piece, *rest): pieces[piece] + log_prob
        for piece in prefixes
        for rest, log_prob in segmentations(text[len(piece) :], pieces).items()
    }


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_segmentations_are_sampled_in_proportion_to_their_probability(alpha):
    log_probs = {"a": -1.5, "b": -2.5, "ab": -1.0, "ba": -2.0, "aba": -4.0}
    weights = {pieces: np.exp(alpha * log_prob) for pieces, log_prob in segmentations("ababa", log_probs).items()}
    rng, count = random.Random(5), 20_000
    counts = Counter(tuple(sample_segmentation("ababa", log_probs, -99.0, alpha, rng)) for _ in range(count))
    assert set(counts) == set(weights)
    for pieces, weight in weights.items():
        p = weight / sum(weights.values())
        assert abs(counts[pieces] / count - p) < 4.5 * np.sqrt(p * (1 - p) / count)


def test_the_likeliest_segmentation_is_that_of_the_library():
    for tokenizer in (PLAIN["sentencepiece"], ENDED["sentencepiece"]):
        assert isinstance(tokenizer, SentencePiece)
        for text in (TEXT, "Zebra \u0416\U0001f600!", ""):
            assert tokenizer.encode_sampled(text, alpha=1e4, seed=1).tolist() == tokenizer.encode(text).tolist()


def test_segmentations_are_the_same_in_every_process(tmp_path):
    PLAIN["sentencepiece"].save(tmp_path / "tokenizer.json")
    code = (
        "from textdiffusion.data.tokenizers.loading import load\n"
        f"tokenizer = load({str(tmp_path / 'tokenizer.json')!r})\n"
        f"print([tokenizer.encode_sampled({TEXT!r}, alpha=0.2, seed=seed).tolist() for seed in range(5)])"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0] for process in processes)
    assert json.loads(first) == json.loads(second)
    assert len({str(ids) for ids in json.loads(first)}) == 5


def test_only_unigram_models_have_probabilities():
    model = io.BytesIO()
    options = {"model_type": "bpe", "vocab_size": 80, "hard_vocab_limit": False, "minloglevel": 2}
    SentencePieceTrainer.train(sentence_iterator=iter(TEXT.split("\n")), model_writer=model, **options)
    assert not SentencePiece(model.getvalue()).log_probs
    assert isinstance(PLAIN["sentencepiece"], SentencePiece)
    assert PLAIN["sentencepiece"].log_probs


def test_gpt2_from_vocab_and_merges(data: Path):
    tokenizer = loading.load_any(data / "tokenizers/gpt2", ())
    assert tokenizer.vocab_size == 50257
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    assert tokenizer.end_id is None
    ids, counts = counted(tokenizer, TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert counts.sum() == len(TEXT)
    ended = loading.load_any(data / "tokenizers/gpt2", (END, PAD))
    assert (ended.end_id, ended.pad_id, ended.vocab_size) == (50256, 50257, 50258)
    assert 50256 not in ended.encode("<|endoftext|>")


def test_bert_from_vocab(data: Path):
    tokenizer = loading.load_any(data / "tokenizers/bert/vocab.txt", (END, PAD))
    assert tokenizer.vocab_size == 30522
    assert (tokenizer.end_id, tokenizer.pad_id) == (102, 0)
    ids, counts = counted(tokenizer, "  Hello, unaffable world! ")
    assert [tokenizer.token_text(int(i)) for i in ids] == ["hello", ",", "una", "##ffa", "##ble", "world", "!"]
    assert counts.tolist() == [7, 1, 4, 3, 3, 6, 2]  # dropped spaces count with the word after them
    assert tokenizer.decode(ids) == "hello, unaffable world!"


def test_plain_tokenizer_json(tmp_path):
    engine = Engine(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.enable_padding(length=10)
    engine.save(str(tmp_path / "tokenizer.json"))
    assert load(tmp_path / "tokenizer.json").encode("a b zz a").tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tokenizer at"),
        ("{", "not a tokenizer file"),
        ("[]", "not a tokenizer file: it is damaged: it holds a list"),
        ('{"kind": "x"}', "not a tokenizer file"),
        ('{"kind": "bytes", "specials": [null]}', "specials must be a list of texts"),
        ('{"kind": "characters", "characters": ["ab"], "specials": []}', "a list of single characters"),
        ('{"kind": "characters", "characters": null, "specials": []}', "characters must be a list of texts"),
        ('{"kind": "characters", "specials": []}', "not a tokenizer file: KeyError"),
        ('{"kind": null, "end": 3}', "end is 3; it must be text"),
        ("[" * 100_000, "not a tokenizer file: it is damaged: its JSON is nested"),
    ],
    ids=range(10),
)
def test_files_that_are_not_tokenizers_are_refused(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load(path)


def test_an_empty_vocabulary_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match="empty"):
        loading.load_any(tmp_path, ())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no vocabulary"):
        loading.load_any(tmp_path / "empty", ())


def test_long_text_is_encoded_in_parts_and_loses_nothing():
    text = TEXT * 2000
    for kind in ("words", "bpe", "wordpiece"):
        ids, counts = counted(PLAIN[kind], text)
        assert PLAIN[kind].decode(ids) == text
        assert counts.sum() == len(text)


@pytest.mark.parametrize(("count", "step"), [(10, 1), (11, 2), (20, 2), (21, 4), (1000, 128)])
def test_subwords_of_a_long_text_are_learned_from_an_even_sample(count, step):
    chunks = [f"{number:04}" for number in range(count)]
    assert subwords.even_sample(iter(chunks), limit=40) == chunks[::step]
