"""Files that may be damaged or hostile end in a sentence that names them, never in another error."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import MissingFile, UserError
from textdiffusion.core.reading import FOREIGN_BITS, MAX_DEPTH, parse_json, read_bytes, read_object
from textdiffusion.core.seals import seal, unseal


def test_an_object_is_read(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, -2.5, true, null, "\\ud83d\\ude00"]}')
    assert read_object(path) == {"a": [1, -2.5, True, None, "😀"]}
    (tmp_path / "link.json").symlink_to(path)  # as in the cache of a model hub
    assert read_object(tmp_path / "link.json") == read_object(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b'{"a": 1', "is not JSON"),
        (b'{"a": "\xe9"}', "byte 0xe9 at offset 7 is not UTF-8"),
        (b"null", "holds null instead of a JSON object"),
        (b"[]", "holds a list"),
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 64 levels"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": 9223372036854775808}', "does not fit in 64 bits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "does not fit in 64 bits"),
        (b'{"a": "\\ud800"}', "half a surrogate pair"),
        (b'{"\\udfff": 1}', "half a surrogate pair"),
        (b"{}" + b" " * 1000, "more than 1,000 bytes"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, problem: str, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as caught:
        read_object(path, limit=1000 if content[:2] == b"{}" else 1 << 20)
    assert str(path) in str(caught.value)


def test_only_regular_files_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, problem in {"pipe": "a pipe", "device": "a pipe or a device", "": "a folder", "loop": "link"}.items():
        with pytest.raises(UserError, match=problem):
            read_bytes(tmp_path / name)
    for name, problem in {"dangling": "a link to a file that does not exist", "none": "is missing"}.items():
        with pytest.raises(MissingFile, match=problem):
            read_bytes(tmp_path / name)
    with pytest.raises(MissingFile):
        read_bytes(tmp_path / "none/below.json")
    with pytest.raises(UserError, match="null"):
        read_bytes(f"{tmp_path}/a\0b")


def test_depth_counts_levels():
    parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")
    with pytest.raises(UserError):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "x")


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_value_or_a_sentence(text: str):
    with suppress(UserError):
        parse_json(text, "x")


def test_a_seal_notices_every_change():
    sealed = seal({"step": 3, "best": None})
    assert unseal(sealed, "x", required=True) == {"step": 3, "best": None}
    for damaged in (
        {**sealed, "step": 4},
        {**sealed, "more": 1},
        {**sealed, "sha256": "0"},
        {**sealed, "sha256": None},
    ):
        with pytest.raises(UserError, match="x is damaged or was edited"):
            unseal(damaged, "x")
    assert unseal({"step": 3}, "x") == {"step": 3}
    with pytest.raises(UserError):
        unseal({"step": 3}, "x", required=True)


def test_numbers_of_others_may_be_larger(tmp_path: Path):
    """`transformers` writes 10**30 where a tokenizer has no longest text."""
    path = tmp_path / "tokenizer_config.json"
    path.write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert read_object(path, int_bits=FOREIGN_BITS)["model_max_length"] == int(1e30)
    path.write_text('{"a": ' + "9" * 66 + "}")
    with pytest.raises(UserError, match=r"the number 9{20}\.\.\. of 66 digits does not fit"):
        read_object(path, int_bits=FOREIGN_BITS)
