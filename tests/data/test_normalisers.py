"""Normalisers by name, whole and in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.normalisers import NORMALISERS, StreamingNormalizer, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("The 3 Cafés,  in 1984!", "the three caf s in one nine eight four "),
        ("\n Anarchism\n\nis", " anarchism is"),
        ("...", " "),
        ("\u0130\u212a", " "),  # dotted I and the Kelvin sign are not ASCII, whatever lower() makes of them
    ],
)
def test_text8(text, expected):
    assert normalise("text8", text) == expected


def test_text8_leaves_its_own_kind_alone(data):
    text = (data / "corpora/wiki_text8style.txt").read_text(encoding="utf-8")[:300_000]
    assert normalise("text8", text) == text


@pytest.mark.parametrize("name", NORMALISERS)
@given(st.lists(st.text("aB1 é.\n", max_size=8), max_size=6))
def test_pieces_cut_at_spaces_join_to_the_whole(name, words):
    pieces = [f"{word} " for word in words]
    running = StreamingNormalizer(name)
    assert "".join(map(running, pieces)) == normalise(name, "".join(pieces))


def test_names():
    assert normalise("none", "Ab") == "Ab"
    assert normalise("lower", "Ab É") == "ab é"
    with pytest.raises(UserError, match="no normaliser 'upper'; it can be none, lower, text8"):
        normalise("upper", "x")
