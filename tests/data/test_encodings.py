"""Encodings: a mark decides, guesses are said, nothing that is not text passes, and every refusal has a way out."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.encodings import parse_encodings
from textdiffusion.data.sources import Files

FRENCH = "Il était une fois un poète qui écrivait des vers sur les pommes.\n" * 4
CHINESE = "今天天气很好,我们去公园。\n明天会下雨吗?\n" * 4


def read(path, content: bytes, **options) -> tuple[str, list[str]]:
    path.write_bytes(content)
    files = Files(path.name, [path], **options)
    return "".join(chunk.text for chunk in files.chunks()), files.notes()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("setting", ["utf-8", "latin-1", "utf-16"])
def test_a_byte_order_mark_decides(tmp_path, encoding, setting):
    assert read(tmp_path / "a.txt", FRENCH.encode(encoding), encoding=setting) == (FRENCH, [])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [FRENCH, CHINESE, "Жил был поэт. Он писал стихи.\n" * 9], ids=["fr", "zh", "ru"])
def test_utf16_without_a_mark_is_recognised_and_said(tmp_path, encoding, text):
    found, notes = read(tmp_path / "a.txt", text.encode(encoding))
    assert found == text
    assert [f"is read as {encoding}" in note for note in notes] == [True]


def test_utf16_by_name_needs_no_mark(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        assert read(tmp_path / "a.txt", FRENCH.encode(encoding), encoding="utf-16")[0] == FRENCH


def test_western_text_is_read_with_a_note_that_shows_it(tmp_path):
    found, notes = read(tmp_path / "a.txt", ("Hello.\n" + FRENCH).encode("cp1252"))
    assert found == "Hello.\n" + FRENCH
    assert "is not UTF-8 (the first, 0xe9, in line 2) and is read as cp1252, such as" in notes[0]
    assert "était" in notes[0]


@pytest.mark.parametrize("encoding", ["koi8_r", "cp1251", "shift_jis", "gb18030", "euc_kr"])
def test_what_cannot_be_guessed_is_refused_with_encodings_that_fit(tmp_path, encoding):
    texts = {"k": "Жил был поэт", "c": "Жил был поэт", "s": "桜の花が咲く", "g": CHINESE, "e": "안녕하세요 시인"}
    text = texts[encoding[0]] * 9
    with pytest.raises(UserError, match=r"is not utf-8: byte 0x.. at offset \d+, line 1 is invalid. Set text.encoding"):
        read(tmp_path / "a.txt", text.encode(encoding))
    assert read(tmp_path / "a.txt", text.encode(encoding), encoding=f"utf-8, {encoding}")[0] == text
    assert read(tmp_path / "a.txt", text.encode(), encoding=f"utf-8, {encoding}")[0] == text


def test_an_alphabet_between_tags_is_not_taken_for_accents(tmp_path):
    text = "<item><title>Debian поэт</title><description>markup</description></item>\n" * 9
    with pytest.raises(UserError, match="is not utf-8"):
        read(tmp_path / "a.xml", text.encode("cp1251"))


def test_a_few_bad_bytes_in_utf8(tmp_path):
    content = "漢字\n".encode() * 3 + b"bad \xff byte\n"
    with pytest.raises(UserError, match=r"byte 0xff at offset 25, line 4 is invalid.*text.skip_bad=true"):
        read(tmp_path / "a.txt", content)
    found, notes = read(tmp_path / "a.txt", content, skip_bad=True)
    assert found == "漢字\n" * 3 + "bad  byte\n"
    assert "bytes that are not utf-8 are left out, the first, 0xff, in line 4" in notes[0]


def test_nuls(tmp_path):
    with pytest.raises(UserError, match=r"has NULs \(2, the first in line 2\).*text.skip_bad=true"):
        read(tmp_path / "a.txt", b"some text\nwith\0 a\0\nNUL in a longer text")
    found, notes = read(tmp_path / "a.txt", b"a\nb\0c\n" + b"text " * 20, skip_bad=True)
    assert found == "a\nbc\n" + "text " * 20
    assert "NULs (1, the first in line 2) are left out" in notes[0]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "a ZIP archive"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "a program"),
        (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"GIF89a\x01\0\x01\0\x80\xff", "a GIF image"),
        (b"\x28\xb5\x2f\xfd\x04\xff\xff", "a Zstandard file"),
        (bytes(range(256)) * 4, "a binary file"),
    ],
)
def test_binary_files_are_named(tmp_path, content, kind):
    with pytest.raises(UserError, match=f"looks like {kind}.*, not text"):
        read(tmp_path / "a.txt", content)


def test_text_that_begins_like_a_binary_file(tmp_path):
    for start in ("BM", "MZ", "RIFF", "ID3"):
        assert read(tmp_path / "a.txt", f"{start} {FRENCH}".encode("cp1252"))[0] == f"{start} {FRENCH}"


@pytest.mark.parametrize(
    "name", ["rot13", "hex", "zlib", "bz2", "base64", "uu", "punycode", "idna", "undefined", "unicode_escape"]
)
def test_only_encodings_of_text(name):
    with pytest.raises(UserError, match=f"'{name}' is not an encoding of text"):
        parse_encodings(name)


@pytest.mark.parametrize("name", ["klingon", "", "a\0b", "x" * 5000, "\udcff", "utf-8,"])
def test_encodings_that_do_not_exist(name):
    with pytest.raises(UserError, match="There is no encoding"):
        parse_encodings(name)


any_encodings = st.sampled_from(["utf-8", "utf-16", "utf-8,cp1251"])


@given(content=st.binary(max_size=300), skip_bad=st.booleans(), name=any_encodings)
@settings(max_examples=100)
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory, content, skip_bad, name):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    with suppress(UserError):  # and nothing else
        found, _ = read(path, content, encoding=name, skip_bad=skip_bad)
        assert "\0" not in found
        found.encode()
