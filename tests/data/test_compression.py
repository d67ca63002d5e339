"""Compressed files: known by their bytes, whatever their names, and damage ends in a sentence."""

import bz2
import gzip
import lzma
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.compression import file_type
from textdiffusion.data.paths import find_files
from textdiffusion.data.sources import Files

TEXT = "some words of plain text\n" * 400
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def read(path: Path) -> str:
    return "".join(chunk.text for chunk in Files(path.name, [path]).chunks())


@pytest.mark.parametrize("suffix", PACK)
def test_in_any_case_of_letters_and_by_any_name(tmp_path, suffix):
    packed = PACK[suffix](TEXT.encode())
    for name in (f"a.txt{suffix}", f"B.TXT{suffix.upper()}", "c.txt"):
        (tmp_path / name).write_bytes(packed)
        assert read(tmp_path / name) == TEXT
    assert len(find_files(str(tmp_path))) == 3
    (tmp_path / f"plain.txt{suffix}").write_text(TEXT)
    assert read(tmp_path / f"plain.txt{suffix}") == TEXT


def test_the_type_is_that_of_the_content():
    names = ["a.JSONL.GZ", "a.csv.bz2", "a.xz", "a.b.TXT", "a"]
    assert [file_type(Path(name)) for name in names] == [".jsonl", ".csv", "", ".txt", ""]


@pytest.mark.parametrize("suffix", PACK)
@given(position=st.integers(10, 60), byte=st.integers(1, 255), cut=st.booleans())
def test_damage_ends_in_a_sentence(tmp_path_factory, suffix, position, byte, cut):
    packed = bytearray(PACK[suffix](TEXT.encode()))
    if cut:
        packed = packed[:position]
    else:
        packed[position % len(packed)] ^= byte
    path = tmp_path_factory.getbasetemp() / f"a.txt{suffix}"
    path.write_bytes(packed)
    with suppress(UserError):  # and nothing else; a byte that nothing depends on may change
        assert read(path) == TEXT


def test_what_is_damaged_is_named(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:-12])
    with pytest.raises(UserError, match=r"a\.txt\.gz is not a complete gzip file: .*end-of-stream"):
        read(tmp_path / "a.txt.gz")
