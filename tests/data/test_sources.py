"""Files, folders, globs, gzip, JSONL, Parquet, hub: the same text by every way, lazily."""

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data import encodings
from textdiffusion.data.config import TextConfig
from textdiffusion.data.documents import open_source, read_units
from textdiffusion.data.paths import find_files
from textdiffusion.data.sources import Chunk, Files

DOCUMENTS = ["one\ntwo", "é 漢\n", "three"]
unicode_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def joined(pieces) -> list[str]:
    """The documents the pieces make."""
    documents: dict[int, str] = {}
    for piece in pieces:
        documents[piece.document] = documents.get(piece.document, "") + piece.text
    return list(documents.values())


def read(data: Path | str, field: str = "", **options) -> list[str]:
    return joined(Files(str(data), find_files(str(data)), (field, "", ""), **options).chunks())


def test_a_folder_a_glob_and_gzip(tmp_path):
    (tmp_path / "sub").mkdir()
    for i, text in enumerate(DOCUMENTS[:2]):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "sub/3.txt.gz", "wt", encoding="utf-8") as file:
        file.write(DOCUMENTS[2])
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/note.txt").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert read(tmp_path) == DOCUMENTS
    assert read(f"{tmp_path}/*.txt") == DOCUMENTS[:2]
    assert read(f"{tmp_path}/**/*.gz") == DOCUMENTS[2:]
    assert read(tmp_path, limit=2) == DOCUMENTS[:2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl(tmp_path, name):
    lines = "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(DOCUMENTS)) + "\n\n"
    opener = gzip.open if name.endswith("gz") else open
    with opener(tmp_path / name, "wt", encoding="utf-8") as file:
        file.write(lines)
    assert read(tmp_path / name, field="text") == DOCUMENTS
    with pytest.raises(UserError, match=r"holds records. Set text.field to .* the fields are id, text"):
        read(tmp_path / name)
    with pytest.raises(UserError, match=r"line 1: no field 'body'; the fields are: id, text"):
        read(tmp_path / name, field="body")
    with pytest.raises(UserError, match="line 1: field 'id' is int, not text"):
        read(tmp_path / name, field="id")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"id": [0, 1, 2], "text": DOCUMENTS}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", field="text") == DOCUMENTS
    with pytest.raises(UserError, match="has no field 'body'; its fields are: id, text"):
        read(tmp_path / "a.parquet", field="body")


@given(text=unicode_text, piece=st.integers(1, 9), encoding=st.sampled_from(["utf-8", "utf-16", "utf-32-le"]))
def test_reading_in_pieces_loses_nothing(tmp_path_factory, text, piece, encoding):
    path = tmp_path_factory.mktemp("pieces") / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "READ_SIZE", piece)
        patch.setattr(encodings, "MAX_LINE", 5)
        pieces = list(Files("a", [path], encoding=encoding).chunks())
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(p.text for p in pieces) == expected
    assert not pieces or pieces[-1].bytes_read == path.stat().st_size
    for before in pieces[:-1]:
        assert before.text.endswith("\n") or len(before.text) >= 5 or before.text.endswith(" ")


@given(good=st.integers(0, 40), piece=st.integers(1, 16), bad=st.sampled_from([b"\xff", b"\xe9t", b"\xe6\xbc"]))
def test_the_first_bad_byte_is_named(tmp_path_factory, good, piece, bad):
    path = tmp_path_factory.mktemp("bad") / "a.txt"
    start = ("é" * good).encode()
    path.write_bytes(start + bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "READ_SIZE", piece)
        with pytest.raises(UserError) as error:
            list(Files("a", [path]).chunks())
    assert f"byte 0x{bad[0]:02x} at offset {len(start)}, line 1 is invalid" in str(error.value)
    assert "for example text.encoding=" in str(error.value)
    assert "text.skip_bad=true" in str(error.value)


def stream(pieces: list[Chunk], **options) -> str:
    source = SimpleNamespace(name="x", size=0, chunks=lambda: iter(pieces), identity=list, notes=list)
    return "".join(unit.text for unit in read_units(source, TextConfig(data="x", **options)))


def test_documents_of_a_stream_are_kept_apart():
    pieces = [Chunk("one", 0, 0, 3), Chunk("", 1, 0, 3), Chunk("two\n", 2, 0, 7), Chunk("three", 3, 1, 12)]
    assert stream(pieces) == "one\ntwo\nthree"
    assert stream(pieces, normaliser="text8") == "one two three"
    assert stream([Chunk("cut ", 0, 0, 4), Chunk(" here", 0, 0, 9)], normaliser="text8") == "cut here"


def test_lines_may_span_pieces():
    pieces = [
        Chunk("a long", 0, 0, 6),
        Chunk(" line\nnext\nla", 0, 0, 18),
        Chunk("st", 0, 0, 20),
        Chunk("new", 1, 0, 23),
    ]
    source = SimpleNamespace(name="x", size=0, chunks=lambda: iter(pieces), identity=list, notes=list)
    lines = [unit.text for unit in read_units(source, TextConfig(data="x", layout="lines"))]
    assert lines == ["a long line", "next", "last", "new"]
    documents = [unit.text for unit in read_units(source, TextConfig(data="x", layout="documents"))]
    assert documents == ["a long line\nnext\nlast", "new"]


def test_hub_data_is_streamed_once_into_a_local_file(tmp_path, monkeypatch):
    calls = []

    def load_dataset(name, config, *, split, streaming):
        calls.append((name, config, split, streaming))
        return ({"body": text} for text in DOCUMENTS)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    config = TextConfig(data="hf:owner/name", hub_config="small", hub_split="test", field="body", limit=2)
    for _ in range(2):
        assert joined(open_source(config.data, config, tmp_path).chunks()) == DOCUMENTS[:2]
    assert calls == [("owner/name", "small", "test", True)]
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_a_broken_download_leaves_nothing(tmp_path, monkeypatch):
    def load_dataset(*args, **options):
        yield {"body": "good"}
        raise ConnectionError("lost")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    config = TextConfig(data="hf:owner/name", field="body")
    with pytest.raises(UserError, match="hf:owner/name cannot be read: ConnectionError: lost"):
        open_source(config.data, config, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'textdiffusion\[hf\]'"):
        open_source(config.data, config, tmp_path)


def test_a_built_in_refuses_options_of_files(tmp_path):
    with pytest.raises(UserError, match="field has no effect on the built-in data grammar"):
        open_source("grammar", TextConfig(data="grammar", field="text"), tmp_path)
