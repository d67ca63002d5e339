"""Patterns mean what Python's regular expressions mean, with ASCII classes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.guidance import patterns
from textdiffusion.guidance import regex as regexes

LETTERS = "ab1 .é\U0001f600\n"
ATOMS = st.sampled_from(["a", "b", ".", r"\.", r"\d", r"\W", "[^a]", "[a-z1]", "é", "[à-\U0001f602]"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{2,}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=5,
)


def matches(node: patterns.Node, text: str) -> bool:
    steps, accepts = patterns.automaton(node)
    state = 0
    for byte in text.encode():
        state = steps[state, byte]
    return bool(accepts[state])


@settings(max_examples=30)
@given(PATTERNS, st.lists(st.text(LETTERS, max_size=6), min_size=6, max_size=6))
def test_the_same_texts_match_as_in_python(pattern, texts):
    node = regexes.parse(pattern)
    for text in texts:
        expected = re.fullmatch(pattern, text, re.ASCII) is not None
        assert matches(node, text) == expected
        assert matches(patterns.complement(node), text) != expected


def test_words_end_where_words_end():
    found = [
        text for text in ("pear", "a pear.", "pears", "spear", "éPear pear", "") if matches(patterns.word("pear"), text)
    ]
    assert found == ["pear", "a pear.", "éPear pear"]
    assert matches(patterns.word("a pear."), "not a pear...")
    assert all(matches(patterns.word("pear"), f"un{a}pear{b}") for a, b in ("“”", "——", "«»", "、。"))
    assert not any(matches(patterns.word("pear"), f"{a}pear{b}") for a, b in ("éé", "²_", "\u0301x", "ж語"))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a**", "repeats a repeat"),
        ("(a", "never closed"),
        ("a)", "closes a group that was not opened"),
        ("[a", "never closed"),
        ("^a", "the whole text must match"),
        ("a{x}", "not a count"),
        ("a{3,2}", "wrong order"),
        (r"\b", "not an escape"),
        ("(?=a)", "not supported"),
        ("*a", "nothing to repeat"),
        ("[z-a]", "below its start"),
        (r"[a-\d]", "cannot make a range"),
        (r"[\d-z]", "cannot make a range"),
        (r"[\w-z]", "cannot make a range"),
    ],
)
def test_what_is_no_pattern_is_refused(pattern, said):
    with pytest.raises(UserError, match=said):
        patterns.automaton(regexes.parse(pattern))


def test_patterns_of_too_many_states_are_refused(monkeypatch):
    monkeypatch.setattr(patterns, "MAX_STATES", 100)
    with pytest.raises(UserError, match="more than 100 states"):
        patterns.automaton(regexes.parse("(a|b)*a(a|b){8}"))
