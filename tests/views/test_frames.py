import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.terminal import visible
from textdiffusion.data.tokenizers.base import END, PAD, Characters, Tokenizer
from textdiffusion.data.tokenizers.sentencepiece import SentencePiece
from textdiffusion.data.tokenizers.subwords import train_bpe, train_wordpiece, train_words
from textdiffusion.views.frames import Framer, Spelling, State, evenly, frames

TEXT = "the thing that sings, the ring: naïve 🙂 things bring strings\n" * 20


def test_states_follow_ids_and_given(play, letters):
    hole = letters.vocab_size
    a, b = letters.encode("ab").tolist()
    fixed = torch.tensor([[True, False, False, False]])
    shown = list(frames(play([[[a, hole, a, b]], [[a, b, b, b]]], hole, confidence=0.257), letters, fixed))
    assert [cell.state for cell in shown[0].rows[0]] == [
        State.GIVEN,
        State.UNDECIDED,
        State.DECIDED,
        State.DECIDED,
    ]
    assert [cell.state for cell in shown[1].rows[0]] == [State.GIVEN, State.CHANGED, State.CHANGED, State.DECIDED]
    assert shown[1].rows[0][1] == ("b", 0.26, "changed")
    assert shown[0].rows[0][1] == ("", 0.0, "undecided")
    assert (shown[1].index, shown[1].total, shown[1].t, shown[1].calls) == (1, 1, 0.0, 1.0)
    assert shown[0].status == "step 0/1, noise 100%"
    assert shown[1].status == "step 1/1, noise 0%, 1 network calls"


def test_changes_are_against_the_last_frame_shown(play, letters):
    steps = list(play([[[0]], [[1]], [[1]], [[0]]], letters.vocab_size))
    framer = Framer(letters)
    states = [framer.frame(steps[i]).rows[0][0].state for i in (0, 2, 3)]
    assert states == [State.DECIDED, State.CHANGED, State.CHANGED]


def test_frames_are_json(play, letters):
    frame = next(frames(play([[[0, 1, letters.vocab_size]]], letters.vocab_size), letters))
    again = json.loads(json.dumps(dataclasses.asdict(frame)))
    assert again["rows"] == [[list(cell) for cell in frame.rows[0]]]


def test_ids_may_grow_and_rows_may_be_limited(play, letters):
    steps = list(play([[[0], [0], [0]], [[0, 1], [0, 1], [0, 1]]], letters.vocab_size))
    framer = Framer(letters, torch.tensor([[True], [False], [False]]))
    assert len(framer.frame(steps[0], max_rows=2).rows) == 2
    rows = framer.frame(steps[1]).rows
    assert [[cell.state for cell in row] for row in rows] == [
        ["given", "changed"],
        ["decided", "changed"],
        ["decided", "decided"],  # seen for the first time
    ]


def test_noise_may_grow(play, letters):
    """The forward process: the same steps with t from 0 to 1."""
    hole = letters.vocab_size
    steps = [dataclasses.replace(step, t=1 - step.t) for step in play([[[3, 4]], [[3, hole]], [[hole, hole]]], hole)]
    shown = list(frames(steps, letters))
    assert [frame.status.split(", ")[1] for frame in shown] == ["noise 0%", "noise 50%", "noise 100%"]
    assert ["".join(cell.text or "_" for cell in frame.rows[0]) for frame in shown] == ["ab", "a_", "__"]


@given(st.text(max_size=30))
def test_bytes_of_one_character_are_joined(octets, text):
    ids = octets.encode(text).tolist()
    pieces = Spelling(octets).texts(ids)
    assert len(pieces) == len(ids)
    assert [piece for piece in pieces if piece] == list(text)


@given(st.lists(st.integers(0, 256), max_size=12))
def test_any_bytes_are_spelled(octets, ids):
    """Broken characters and gaps: every position that begins a piece shows something, none is lost."""
    pieces = Spelling(octets).texts(ids)
    for i, piece in enumerate(pieces):
        assert len(piece) <= 1
        if ids[i] < 128:
            assert piece == chr(ids[i])
        elif ids[i] == 256:
            assert piece == ""
        elif not piece:  # inside a character that began at most three positions ago
            assert any(len(before.encode()) > 1 for before in pieces[max(0, i - 3) : i])


def test_a_gap_does_not_join_the_bytes_beside_it(octets):
    first, second = "é".encode()
    assert Spelling(octets).texts([first, 256, second, first, second]) == ["�", "", "�", "é", ""]


@pytest.mark.parametrize("kind", ["words", "bpe", "wordpiece", "pieces"])
def test_pieces_add_up_to_what_the_tokenizer_decodes(kind):
    if kind == "words":
        tokenizer = train_words([TEXT], 0, [])
    elif kind == "bpe":
        tokenizer = train_bpe([TEXT], 300, [])
    elif kind == "wordpiece":
        tokenizer = train_wordpiece([TEXT], 100, [], TEXT)
    else:
        pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
        tokenizer = SentencePiece.train([TEXT], 300)
    ids = tokenizer.encode(TEXT).tolist()
    pieces = Spelling(tokenizer).texts(ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    # After an undecided position a token reads as it does in the middle of a text.
    hole = tokenizer.vocab_size
    assert Spelling(tokenizer).texts([hole, *ids[1:9]])[1] == pieces[1]


class Joined(Tokenizer):
    """Words are joined with spaces when they are decoded, pieces with a `##` are not."""

    kind, end_id, pad_id = "joined", None, None
    words = ("the", "ring", "##s", ".")
    vocab_size = len(words)

    def encode_counted(self, text):
        return np.array([self.words.index(word) for word in text.split()]), None

    def token_text(self, id):
        return self.words[id]

    def to_dict(self):
        return {"kind": self.kind}

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids).replace(" ##", "").replace(" .", ".")


def test_spaces_that_decoding_adds_belong_to_the_next_piece():
    pieces = Spelling(Joined()).texts
    assert pieces([0, 1, 2, 3, 0]) == ["the", " ring", "s", ".", " the"]
    assert pieces([4, 1, 4, 0, 4, 3]) == ["", " ring", "", " the", "", "."]


def test_nothing_is_shown_after_the_end():
    tokenizer = Characters("ab", [END, PAD])
    hole, end, pad = tokenizer.vocab_size, tokenizer.end_id, tokenizer.pad_id
    assert end is not None
    assert pad is not None
    assert Spelling(tokenizer).texts([0, hole, pad, 1, end, 0, hole, 1]) == ["a", "", "", "b", "", "", "", ""]


@given(st.text(st.characters(), max_size=20))
def test_visible_text_cannot_steer_the_screen(text):
    shown = visible(text)
    assert len(shown) == len(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff")


def test_visible_signs():
    assert visible("a\n\t\x1b[31m\x7f é\u200d") == "a⏎⇥␛[31m· é\u200d"
    assert visible("a\n\tb\r", keep="\n\t") == "a\n\tb␍"


@given(st.integers(0, 2000), st.integers(2, 70))
def test_evenly(total, count):
    chosen = evenly(total, count)
    assert chosen[0] == 0
    assert chosen[-1] == total
    assert len(chosen) == min(count, total + 1)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1
