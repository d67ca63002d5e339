"""Bad inputs and the messages they cause: the table of docs/bad-inputs.md.

`python tests/data/test_bad_inputs.py` rewrites the page.
"""

import gzip
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import prepare
from textdiffusion.data.shards import HEADER, verify

PAGE = Path(__file__).parents[2] / "docs/bad-inputs.md"
HEAD = """# Bad inputs and what they print

The command line prints the message without a traceback and exits with code 2; no partial files remain. Settings such as
`text.split=cut` are given with `--set`. A test checks every row; `python tests/data/test_bad_inputs.py` rewrites them.

| input | message |
|---|---|
"""
TEXT = "some words of plain text\n" * 40
CASES: dict[str, Callable[[], TextConfig | None]] = {}


def case(name: str) -> Callable[[Callable[[], TextConfig | None]], None]:
    """Registers a function that makes the input in the working folder; it is prepared unless the function raises."""

    def register(make: Callable[[], TextConfig | None]) -> None:
        CASES[name] = make

    return register


def written(path: str, content: str | bytes, **options) -> TextConfig:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return replace(TextConfig(data=path), **options)


@case("a file that is missing")
def _() -> TextConfig:
    return TextConfig(data="poem.txt")


@case("a pattern that matches nothing")
def _() -> TextConfig:
    return TextConfig(data="poems/*.txt")


@case("an empty file")
def _() -> TextConfig:
    return written("poem.txt", "")


@case("a file of empty lines, one example per line")
def _() -> TextConfig:
    return written("poem.txt", "\n \n\n", layout="lines")


@case("a folder without text")
def _() -> TextConfig:
    written("pictures/cat.png", b"\x89PNG")
    return TextConfig(data="pictures")


@case("a file that is not UTF-8")
def _() -> TextConfig:
    return written("poem.txt", "Жил был поэт\n".encode("koi8_r"))


@case("UTF-8 with a damaged byte")
def _() -> TextConfig:
    return written("poem.txt", "漢字\n漢字\n".encode() + b"\xff\n")


@case("a text with NULs")
def _() -> TextConfig:
    return written("poem.txt", TEXT + "\0")


@case("a picture")
def _() -> TextConfig:
    return written("cat.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


@case("an archive named as text")
def _() -> TextConfig:
    return written("poem.txt", b"PK\x03\x04\x14\0\0\0\x08\0")


@case("a device")
def _() -> TextConfig:
    return TextConfig(data="/dev/zero")


@case("a link to nothing")
def _() -> TextConfig:
    Path("poem.txt").symlink_to("gone.txt")
    return TextConfig(data="poem.txt")


@case("a name that is not text")
def _() -> TextConfig:
    return TextConfig(data="po\udce8me.txt")


@case("an encoding that does not exist")
def _() -> TextConfig:
    return written("poem.txt", TEXT, encoding="utf-9")


@case("an encoding that is not one of text")
def _() -> TextConfig:
    return written("poem.txt", TEXT, encoding="hex")


@case("a gzip file cut off")
def _() -> TextConfig:
    return written("poem.txt.gz", gzip.compress(TEXT.encode())[:-12])


@case("a split by files of one file")
def _() -> TextConfig:
    return written("poem.txt", TEXT, split="files")


@case("no example that fits in the window")
def _() -> TextConfig:
    return written("poem.txt", TEXT, layout="lines", length=8, too_long="drop")


@case("an example too long, where that is an error")
def _() -> TextConfig:
    return written("poem.txt", TEXT, layout="lines", length=8, too_long="error")


@case("JSONL without a field named")
def _() -> TextConfig:
    return written("poems.jsonl", '{"title": "a", "text": "b"}\n')


@case("JSONL without that field")
def _() -> TextConfig:
    return written("poems.jsonl", '{"title": "a", "text": "b"}\n', field="body")


@case("JSONL with a field that is not text")
def _() -> TextConfig:
    return written("poems.jsonl", '{"text": "a"}\n{"text": 7}\n', field="text")


@case("JSONL with a broken line")
def _() -> TextConfig:
    return written("poems.jsonl", '{"text": "a"}\n{"text": \n', field="text")


@case("JSONL with a line that is not an object")
def _() -> TextConfig:
    return written("poems.jsonl", '["a"]\n', field="text")


@case("JSONL with half a surrogate pair")
def _() -> TextConfig:
    return written("poems.jsonl", '{"text": "a\\ud800"}\n', field="text")


@case("a JSON array without a field named")
def _() -> TextConfig:
    return written("poems.json", '[{"title": "a", "text": "b"}]')


@case("a JSON array cut off")
def _() -> TextConfig:
    return written("poems.json", '[{"text": "a"},\n{"text": ', field="text")


@case("CSV with a row that has too many values")
def _() -> TextConfig:
    return written("poems.csv", "title,text\na,b\nc,d,e\n", field="text")


@case("Parquet without that field")
def _() -> TextConfig:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = pytest.importorskip("pyarrow").table({"title": ["a"], "text": ["b"]})
    parquet.write_table(table, "poems.parquet")
    return TextConfig(data="poems.parquet", field="body")


@case("a field for a plain file")
def _() -> TextConfig:
    return written("poem.txt", TEXT, field="text")


@case("hub data without a field named")
def _() -> TextConfig:
    return TextConfig(data="hf:owner/name")


@case("a tokenizer that is missing")
def _() -> TextConfig:
    return written("poem.txt", TEXT, tokenizer="file", tokenizer_path="tokenizer.json")


@case("a vocabulary that is empty")
def _() -> TextConfig:
    written("gpt/vocab.json", "{}")
    written("gpt/merges.txt", "#version: 0.2\n")
    return replace(written("poem.txt", TEXT), tokenizer="file", tokenizer_path="gpt")


@case("a vocabulary too small for BPE")
def _() -> TextConfig:
    return written("poem.txt", TEXT, tokenizer="bpe", vocab_size=100)


@case("an unknown normaliser")
def _() -> TextConfig:
    return TextConfig(normaliser="upper")


@case("fractions that leave no training text")
def _() -> TextConfig:
    return TextConfig(valid_fraction=0.5, test_fraction=0.5)


@case("an option without effect")
def _() -> TextConfig:
    return TextConfig(vocab_size=500)


@case("a size of the generated language that is not a number")
def _() -> TextConfig:
    return TextConfig(data="grammar:many")


@case("a level that a task does not have")
def _() -> TextConfig:
    return TextConfig(data="sudoku:evil")


@case("mask=question with text that is not a task")
def _() -> TextConfig:
    Path("poem.txt").write_text(TEXT)
    return TextConfig(data="poem.txt", layout="lines", mask="question")


@case("prepared text that is damaged, and whose text is gone")
def _() -> TextConfig:
    config = written("poem.txt", TEXT)
    shard = prepare(config, Path("run/data")).folder / "train.tokens"
    shard.write_bytes(shard.read_bytes()[:-100])
    Path("poem.txt").unlink()
    return config


@case("a shard with a changed byte (found by `doctor`)")
def _() -> None:
    shard = prepare(written("poem.txt", TEXT), Path("run/data")).folder / "train.tokens"
    raw = bytearray(shard.read_bytes())
    raw[HEADER + 5] ^= 1
    shard.write_bytes(raw)
    verify(shard)


def message(make: Callable[[], TextConfig | None]) -> str:
    """The message for this input, with a fixed name for the cache folder."""
    before = set(Path().rglob("*"))
    try:
        if config := make():
            before = set(Path().rglob("*"))
            prepare(config, Path("run/data"))
    except UserError as error:
        removed = before - set(Path().rglob("*"))
        new = [path for path in set(Path().rglob("*")) - before if path.is_file() and path.parts[:1] == ("run",)]
        assert not removed
        assert not [path for path in new if path.name.startswith(".") or path.parent.name.startswith(".")]
        return re.sub(r"\b[0-9a-f]{16}\b", "0123456789abcdef", str(error))
    raise AssertionError("accepted")


def row(name: str, text: str) -> str:
    return f"| {name} | {text.replace('|', chr(92) + '|')} |\n"


@pytest.mark.parametrize("name", CASES)
def test_the_page_says_what_is_printed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = message(CASES[name])
    assert len(text) < 400
    assert "\n" not in text
    assert row(name, text) in PAGE.read_text(encoding="utf-8")


def test_the_page_has_no_other_rows():
    rows = PAGE.read_text(encoding="utf-8").removeprefix(HEAD).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == list(CASES)


if __name__ == "__main__":
    page = HEAD
    for title, maker in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            page += row(title, message(maker))
            os.chdir("/")
    PAGE.write_text(page, encoding="utf-8")
