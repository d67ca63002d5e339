"""The generated language: what is generated is legal, and the checker is exact about what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.builtin.grammar import is_legal, sentences, source

LEGAL = """the old dogs that the child sees bring a pear to an owl.
anna says (the mice know (tom sleeps)).
ben has 3 pears and finds 5 pears, so he has 8 pears.
anna has 1 egg and loses 1 egg, so she has 0 eggs.
(12 - 4) * 3 = 24.
the wolf that sees the men that laugh sleeps.
an odd king runs because these geese wait."""


@given(st.integers(0, 10**6))
def test_what_is_generated_is_legal(seed):
    lines = list(sentences(8, seed))
    assert all(is_legal(line) for line in lines), lines
    assert is_legal("\n".join(lines) + "\n")


def test_examples_are_legal():
    assert is_legal(LEGAL)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("sees bring", "sees brings"),  # agreement with dogs, across the clause
        ("child sees", "child see"),
        ("a pear", "an pear"),
        ("a pear", "a pears"),
        ("an owl", "a owl"),
        ("an owl", "an old"),
        ("sleeps)).", "sleeps)."),
        ("(the mice know (tom sleeps))", "(the mice know tom sleeps)"),
        ("he has 8", "she has 8"),
        ("he has 8", "he has 7"),
        ("he has 8 pears", "he has 8 eggs"),
        ("1 egg ", "1 eggs "),
        ("has 0 eggs", "has 0 egg"),
        ("3 = 24", "3 = 25"),
        ("3 = 24", "3 = 024"),
        ("(12 - 4) * 3", "12 - 4 * 3"),
        ("(12 - 4)", "(12 - 14)"),
        ("laugh sleeps", "laugh sleep"),
        ("that laugh", "that laughs"),
        ("these geese", "these goose"),
        ("odd king", "odd  king"),
        ("king runs", "king runs "),
        ("wait.", "wait"),
        ("an odd", "An odd"),
        (".\nanna says", ".\n\nanna says"),
        (".\nanna says", ". anna says"),
    ],
)
def test_one_thing_wrong_is_illegal(right, wrong):
    assert right in LEGAL
    assert not is_legal(LEGAL.replace(right, wrong))


@pytest.mark.parametrize("text", ["", "\n", ".", "the", "((((((1 + 1) + 1) + 1) + 1) + 1) + 1) = 7.", "1 = 1.", "é."])
def test_odd_text_is_illegal(text):
    assert not is_legal(text)


def test_a_changed_character_is_nearly_always_illegal():
    lines = list(sentences(200, 5))
    symbols = sorted(set("".join(lines)))
    changed = legal = 0
    for number, line in enumerate(lines):
        for position in range(number % 3, len(line), 3):
            symbol = symbols[(number + position) % len(symbols)]
            if symbol != line[position]:
                changed += 1
                legal += is_legal(line[:position] + symbol + line[position + 1 :])
    assert changed > 2000
    assert legal / changed < 0.01


@given(st.text("abenot()1+=. ", max_size=30))
def test_any_text_gets_an_answer(text):
    assert is_legal(text) in (True, False)


def test_deterministic_any_size_and_varied():
    lines = list(sentences(3000, 1))
    assert list(sentences(3, 1)) == lines[:3]
    assert list(sentences(3, 2)) != lines[:3]
    assert len(set(lines)) > 2700
    kinds = [sum(mark in line for line in lines) / 3000 for mark in ("(", " that ", " = ", ", so ", " because ")]
    assert min(kinds) > 0.03
    assert len("".join(lines)) / 3000 < 80


def test_as_a_source():
    pieces = list(source("2500:3").chunks())
    assert [piece.document for piece in pieces] == [0, 1, 2]
    assert "".join(piece.text for piece in pieces).splitlines() == list(sentences(2500, 3))
    assert source("2500:3").identity() != source("2500:4").identity()
    assert next(source("").chunks()).text.startswith(next(sentences(1, 0)))
    for detail in ("x", "0", "5:", "5:1:2", "-3"):
        with pytest.raises(UserError, match="is not valid"):
            source(detail)
