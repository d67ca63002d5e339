"""Prepared text: known by the content of its text, checked when it is opened, and made again if it is damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from textdiffusion.core.errors import UserError
from textdiffusion.data import known_texts
from textdiffusion.data.checksums import CHECKSUMS, DamagedFolder, verify_checksums
from textdiffusion.data.config import TextConfig
from textdiffusion.data.documents import same_text
from textdiffusion.data.paths import MissingText
from textdiffusion.data.prepare import Corpus, prepare

TEXT = "The red pear is sweet.\nThe green fig is old.\n" * 20


@pytest.fixture
def config(tmp_path) -> TextConfig:
    (tmp_path / "a.txt").write_text(TEXT)
    return TextConfig(data=str(tmp_path / "a.txt"), length=8, tokenizer="bytes")


def prepared(config: TextConfig, cache: Path) -> tuple[Corpus, str]:
    """The corpus and what was printed."""
    console = Console(record=True, quiet=True, width=500)
    with open("/dev/null", "w") as nowhere:
        console.file, console.quiet = nowhere, False
        return prepare(config, cache, console=console), console.export_text()


def test_text_is_known_by_its_content(config, tmp_path):
    folder = prepare(config, tmp_path / "cache").folder
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "a.txt", tmp_path / "elsewhere/b.txt")
    moved = replace(config, data=str(tmp_path / "elsewhere/b.txt"))
    assert prepare(moved, tmp_path / "cache").folder == folder
    (tmp_path / "elsewhere/b.txt").write_text(TEXT + "More.\n")
    assert prepare(moved, tmp_path / "cache").folder != folder
    (tmp_path / "elsewhere/b.csv").write_text(TEXT)  # the same bytes, read in another way
    assert prepare(replace(moved, data=str(tmp_path / "elsewhere/b.csv"), field=TEXT[:22]), tmp_path / "cache")


def test_text_that_was_prepared_is_not_needed_again(config, tmp_path):
    folder = prepare(config, tmp_path / "cache").folder
    Path(config.data).unlink()
    assert prepare(config, tmp_path / "cache").folder == folder
    with pytest.raises(MissingText, match="There is no file or folder"):
        prepare(replace(config, layout="lines"), tmp_path / "cache")
    with pytest.raises(MissingText):
        prepare(config, tmp_path / "other cache")
    (folder / "train.tokens").unlink()
    with pytest.raises(DamagedFolder, match=r"train.tokens is missing. Delete the folder"):
        prepare(config, tmp_path / "cache")


def test_the_same_text_under_two_names(config, tmp_path):
    prepare(config, tmp_path / "cache")
    (tmp_path / "b.txt").write_text(TEXT)
    (tmp_path / "c.txt").write_text(TEXT.upper())

    def same(name: str, other: str) -> bool:
        return same_text(str(tmp_path / name), str(tmp_path / other), config, tmp_path / "cache")

    assert same("a.txt", "b.txt")
    assert not same("a.txt", "c.txt")
    Path(config.data).unlink()
    assert same("b.txt", "a.txt")
    assert not same("x.txt", "y.txt")


def test_hashes_are_computed_once(config, tmp_path, monkeypatch):
    monkeypatch.setattr(known_texts, "SETTLED", -5.0)
    prepare(config, tmp_path / "cache")
    known_texts._hashes.clear()  # as in another process
    with monkeypatch.context() as patch:
        patch.setattr(known_texts, "file_sha256", lambda *_: pytest.fail("the text is read again"))
        patch.setattr("textdiffusion.data.prepare.verify_checksums", lambda _: None)
        prepare(config, tmp_path / "cache")


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "a flipped id": lambda folder: flip(folder / "train.tokens", 4096 + 5),
    "a flipped header": lambda folder: flip(
        folder / "train.tokens", (folder / "train.tokens").read_bytes().find(b"chars") + 8
    ),
    "a shard cut off": lambda folder: (folder / "train.tokens").write_bytes(b"{}"),
    "a missing shard": lambda folder: (folder / "test.tokens").unlink(),
    "corpus.json cut off": lambda folder: (folder / "corpus.json").write_text('{"format": 1, "so'),
    "corpus.json missing": lambda folder: (folder / "corpus.json").unlink(),
    "corpus.json with null": lambda folder: (folder / "corpus.json").write_text("null"),
    "another tokenizer": lambda folder: (folder / "tokenizer.json").write_text('{"kind": "bytes", "specials": [null]}'),
    "no checksums": lambda folder: (folder / CHECKSUMS).unlink(),
    "checksums cut off": lambda folder: (folder / CHECKSUMS).write_text((folder / CHECKSUMS).read_text()[:100]),
    "a list that lacks a file": lambda folder: (folder / CHECKSUMS).write_text(
        "".join((folder / CHECKSUMS).read_text().splitlines(keepends=True)[:2])
    ),
    "a folder instead of a file": lambda folder: ((folder / "corpus.json").unlink(), (folder / "corpus.json").mkdir()),
    "another file's path": lambda folder: (folder / CHECKSUMS).write_text(f"{'0' * 64}  ../../a.txt\n"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_again(config, tmp_path, damage):
    first = prepare(config, tmp_path / "cache")
    tokens = np.array(first.train.shard.tokens)
    DAMAGE[damage](first.folder)
    with pytest.raises(DamagedFolder, match=r"Prepared text is damaged: .* Delete the folder"):
        verify_checksums(first.folder)
    again, printed = prepared(config, tmp_path / "cache")
    assert "It is prepared again now" in printed
    assert again.folder == first.folder
    assert np.array_equal(again.train.shard.tokens, tokens)
    verify_checksums(again.folder)
    assert prepared(config, tmp_path / "cache")[1] == ""
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "content", ["", "null", "[" * 100_000, '{"identity": 3, "files": 4}', '{"identity": [[[1, 2]]]}', "\xff"]
)
def test_a_damaged_memory_of_texts_is_ignored(config, tmp_path, content):
    folder = prepare(config, tmp_path / "cache").folder
    (memory,) = (tmp_path / "cache/texts").iterdir()
    assert json.loads(memory.read_text())["identity"]
    memory.write_text(content, encoding="latin-1")
    assert prepare(config, tmp_path / "cache").folder == folder


def test_a_cache_that_cannot_be_used(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write in the folder|TEXTDIFFUSION_CACHE"):
        prepare(config, tmp_path / "file")
