"""Templates: gaps and given text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data import templates
from textdiffusion.data.tokenizers.base import END, PAD, UNK, Bytes, Characters
from textdiffusion.data.tokenizers.subwords import train_words


def test_pieces():
    assert templates.parse("The [MASK:5] pear is [MASK].") == ["The ", 5, " pear is ", templates.OPEN, "."]
    assert templates.parse("[MASK:2][MASK:3]") == [2, 3]


def test_an_escaped_gap_is_text():
    assert templates.parse(r"\[MASK:5] is [MASK:2]") == ["[MASK:5] is ", 2]
    assert templates.parse(r"\[MASK\[MASK[MASK]") == ["[MASK[MASK", templates.OPEN]
    assert templates.parse(r"\\[MASK:2] \\\[MASK") == ["\\", 2, r" \[MASK"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("nothing", "no gap"),
        (r"\[MASK]", "no gap"),
        ("", "no gap"),
        ("[MASK:0]", "N from 1"),
        ("[MASK:-1]", "N from 1"),
        ("[MASK:x]", "N from 1"),
        ("[MASK:]", "N from 1"),
        ("[MASK: 5]", "N from 1"),
        ("[MASK:1.5]", "N from 1"),
        ("[MASK:99999999]", "N from 1"),
        ("[MASK:²]", "N from 1"),
        ("[MASKED]", "N from 1"),
        ("[MASK:5", "no closing bracket"),
        ("a [MASK[MASK]", "no closing bracket"),
    ],
)
def test_invalid_templates_are_refused(template: str, says: str):
    with pytest.raises(UserError, match=says):
        templates.parse(template)


texts = st.text(min_size=1, max_size=8) | st.lists(st.sampled_from(["\\", "[MASK", "]", ":3"]), min_size=1).map("".join)
pieces = st.lists(st.integers(1, 9) | texts, max_size=6)


@given(pieces)
def test_any_text_can_be_given(parts: list):
    """Escaped and joined, text and gaps come back as they were, neighbouring texts as one."""
    merged: list = []
    for part in [*parts, 1]:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    gaps = [f"[MASK:{p}]" if isinstance(p, int) else templates.escaped(p, before_gap=True) for p in merged]
    assert templates.parse("".join(gaps)) == merged
    is_open = "".join("[MASK]" if isinstance(p, int) else templates.escaped(p, before_gap=True) for p in merged)
    lengths = [p for p in merged if isinstance(p, int)]
    assert templates.parse(templates.with_lengths(is_open, lengths)) == merged


@given(pieces)
def test_given_ids_decode_to_the_given_text(parts: list):
    tokenizer = Bytes()
    text = "".join(p.replace("[MASK", "").replace("\\", "") for p in parts if isinstance(p, str))
    ids, known, *_ = templates.encode(f"{text}[MASK:3]{text}", tokenizer)
    assert tokenizer.decode(ids[known]) == text + text
    assert (~known).sum() == 3


def test_a_known_character_stands_in_for_one_the_tokenizer_lacks_and_the_text_keeps_it():
    row = templates.encode("\u00e1z[MASK:1]", Characters("ab"))
    assert row.tokens.tolist()[0] == 0
    assert row.given is not None
    assert templates.paste([*row.tokens[:2].tolist(), 1], row.given, Characters("ab")) == "\u00e1zb"


def test_a_batch_of_different_templates_is_padded():
    batch = templates.batch(["ab[MASK:2]", "[MASK:1]"], Characters("ab"), num=2)
    assert batch.tokens.shape == (4, 4)
    assert batch.valid_mask is not None
    assert batch.valid_mask.tolist() == [[True] * 4] * 2 + [[True, False, False, False]] * 2
    assert batch.target_mask.tolist() == [[False, False, True, True]] * 2 + [[True, False, False, False]] * 2
    assert batch.row_ids is not None
    assert batch.row_ids.tolist() == [0, 1, 0, 1]  # a row's draws do not depend on the templates before it


def test_equal_lengths_need_no_padding():
    assert templates.batch(["a[MASK:1]", "[MASK:1]b"], Characters("ab")).valid_mask is None


def test_ended_and_padded_as_in_training():
    tokenizer = Characters("ab", (END, PAD))
    batch = templates.batch(["a[MASK:1]"], tokenizer, ended=True, padded_to=5)
    assert batch.valid_mask is None
    assert batch.tokens[0].tolist()[2:] == [tokenizer.end_id, tokenizer.pad_id, tokenizer.pad_id]
    assert batch.target_mask[0].tolist() == [False, True, False, False, False]
    assert np.array_equal(batch.tokens[0, :1], tokenizer.encode("a"))


def test_a_space_before_a_gap_is_its_first_words():
    words = train_words(["The red pear is old."], 0, (END, PAD))
    ids, given, spaced, _ = templates.encode("The [MASK:2] is[MASK:1] old", words)
    assert words.decode(ids[given]) == "The is old"
    assert given.tolist() == [True, False, False, True, False, True]
    assert spaced.tolist() == [False, True, False, False, False, False]
    table = templates.allowed_sets(words)
    assert [words.token_text(int(i)) for i in np.flatnonzero(table[templates.SPACED])] == [
        " is",
        " old",
        " pear",
        " red",
    ]
    assert not templates.encode("The [MASK:2]", Characters("The "))[2].any()  # a space is a character of its own
    specials = [i for i in (words.end_id, words.pad_id) if i is not None]
    assert table[:, specials].tolist() == [[False] * 2, [True] * 2, [False] * 2]


def test_no_gap_holds_the_unknown_token():
    tokenizer = Characters("ab", (END, PAD, UNK))
    table = templates.allowed_sets(tokenizer)
    assert tokenizer.unk_id is not None
    assert not table[:, tokenizer.unk_id].any()
    assert table[templates.TEXT].tolist() == [True, True, False, False, False]


def test_an_open_gap_at_the_end_may_end_the_text():
    tokenizer = Characters("ab", (END, PAD))
    for padded_to in (0, 5):
        opened = ["a[MASK:1]b[MASK]", "a[MASK:2]"]
        batch = templates.batch(opened, tokenizer, ended=True, padded_to=padded_to, max_tokens=5)
        assert batch.condition_mask is not None
        assert batch.allowed_set_ids is not None
        assert batch.condition_mask.tolist() == [[True, False, True, False, False], [True, False, False, True, True]]
        assert (batch.allowed_set_ids == templates.ENDING).tolist() == [[False] * 3 + [True] * 2, [False] * 5]
    with pytest.raises(UserError, match="cannot propose where a text ends"):
        templates.batch(["a[MASK]"], Characters("ab"), max_tokens=5)
    with pytest.raises(UserError, match="Every gap"):
        templates.batch(["a[MASK]b"], tokenizer, ended=True)


def test_numbers_fill_the_open_gaps_in_turn():
    assert (
        templates.with_lengths(r"[MASK] \[MASK] [MASK:3][MASK]a[MASK]", [4, 1])
        == r"[MASK:4] \[MASK] [MASK:3][MASK:1]a[MASK]"
    )
