"""Documents from files or from memory, read lazily in chunks of bounded size."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..core.errors import UserError
from . import tables

READ_SIZE = 1 << 20  # bytes read at a time
MAX_LINE = 1 << 23  # characters without a line break after which a chunk is cut elsewhere
TEXT_SUFFIXES = (".txt", ".text", ".md")
TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Chunk:
    """Consecutive text of one document, cut after a line break if there is one.

    `document` and `file` count from 0; `bytes_read` is the progress within the source so far. `source` is the prompt
    and `label` the label of a record (empty: none).
    """

    text: str
    document: int
    file: int
    bytes_read: int
    source: str = ""
    label: str = ""

    @property
    def all_text(self) -> str:
        """The source and the text, for learning a tokenizer."""
        return f"{self.source}\n{self.text}" if self.source else self.text


@runtime_checkable
class Source(Protocol):
    """Text that can be read repeatedly, always the same."""

    name: str
    size: int
    """Total of `Chunk.bytes_read`; 0 if unknown."""

    def chunks(self) -> Iterator[Chunk]: ...

    def identity(self) -> list[Any]:
        """JSON that changes when the text does."""
        ...


class Files:
    """Text, JSONL, CSV, TSV and Parquet files, also gzipped. Each text file and each record is one document."""

    def __init__(
        self,
        name: str,
        paths: list[Path],
        fields: tables.Fields = ("", "", ""),
        *,
        encoding: str = "utf-8",
        limit: int = 0,
    ) -> None:
        self.name, self.paths, self.fields, self.encoding, self.limit = name, paths, fields, encoding, limit
        self.size = sum(path.stat().st_size for path in paths)
        table = next((path for path in paths if file_type(path) in TABLE_SUFFIXES), None)
        for option, value in zip(("field", "source", "label"), fields, strict=True):
            if value and table is None:
                kinds = ", ".join(TABLE_SUFFIXES)
                raise UserError(f"{option}={value!r} has no effect on {name}: only {kinds} files have fields.")
        if table is not None and not fields[0]:
            raise UserError(
                f"{table} holds records. Set text.field to the field with the text; the fields are "
                f"{tables.field_names(table, file_type(table))}."
            )
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise UserError(f"There is no encoding {encoding!r}; common ones are utf-8, utf-16 and latin-1.") from None

    def identity(self) -> list[Any]:
        files = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in self.paths]
        return [files, self.fields, self.encoding, self.limit]

    def chunks(self) -> Iterator[Chunk]:
        document = -1
        bytes_before = 0
        for number, path in enumerate(self.paths):
            last_record = None
            with path.open("rb") as raw:
                for record, (text, source, label) in self._records(path, raw):
                    if record != last_record:
                        if self.limit and document + 1 == self.limit:
                            return
                        document, last_record = document + 1, record
                    yield Chunk(text, document, number, bytes_before + raw.tell(), source, label)
            bytes_before += path.stat().st_size

    def _records(self, path: Path, raw: io.BufferedIOBase) -> Iterator[tuple[int, tables.Texts]]:
        """The number of the record (0 in a text file) and its text, source and label."""
        stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        kind = file_type(path)
        try:
            if kind == ".parquet":
                yield from enumerate(tables.read_parquet(path, self.fields), start=1)
                return
            chunks = decode_chunks(path, stream, self.encoding)
            if kind in TABLE_SUFFIXES:
                yield from enumerate(tables.read_table(path, kind, chunks, self.fields), start=1)
            else:
                yield from ((0, (text, "", "")) for text in chunks)
        except (gzip.BadGzipFile, EOFError) as error:
            raise UserError(f"{path} is not a complete gzip file: {error}.") from None


class Documents:
    """Documents in memory or generated; each counts as a file of its own when the data are split."""

    def __init__(self, name: str, documents: Callable[[], Iterator[str]], identity: list[Any], size: int = 0) -> None:
        self.name, self._documents, self._identity, self.size = name, documents, identity, size

    def identity(self) -> list[Any]:
        return self._identity

    def chunks(self) -> Iterator[Chunk]:
        characters = 0
        for number, text in enumerate(self._documents()):
            characters += len(text)
            yield Chunk(text, number, number, characters)


def find_files(name: str) -> list[Path]:
    """The sorted files of a path, a folder (with its subfolders) or a glob. Raises UserError if there are none."""
    path = Path(name).expanduser()
    if path.is_dir():
        suffixes = TEXT_SUFFIXES + TABLE_SUFFIXES
        if paths := sorted(p for p in _walk(path) if file_type(p) in suffixes):
            return paths
        raise UserError(f"The folder {name} holds no text: no file ends in {', '.join(suffixes)} (also with .gz).")
    if path.exists():
        return [path]
    if glob.has_magic(name):
        if paths := sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()):
            return paths
        raise UserError(f"No file matches {name}.")
    raise UserError(
        f"There is no file or folder {name}. Built-in data are shakespeare, grammar and tasks such as sudoku; "
        "hub data sets are hf:NAME."
    )


def _walk(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, without hidden ones."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def decode_chunks(path: Path, stream: io.BufferedIOBase, encoding: str) -> Iterator[str]:
    """Text in chunks, cut after line breaks. \\r\\n and \\r become \\n, and a byte order mark is removed.

    Raises UserError with the offset of the first byte that is invalid in `encoding`.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    bytes_read, buffer, at_start = 0, "", True
    while True:
        raw = stream.read(READ_SIZE)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            offset = bytes_read - pending + error.start
            raise _undecodable(path, encoding, offset, error.object[error.start]) from None
        bytes_read += len(raw)
        if at_start and text:
            text, at_start = text.removeprefix("\ufeff"), False
        buffer += newlines.decode(text, final=not raw)
        if not raw:
            break
        cut = buffer.rfind("\n") + 1
        if not cut and len(buffer) >= MAX_LINE:
            cut = buffer.rfind(" ") + 1 or len(buffer)
        if cut:
            yield buffer[:cut]
            buffer = buffer[cut:]
    if buffer:
        yield buffer


def _undecodable(path: Path, encoding: str, offset: int, byte: int) -> UserError:
    start = b""
    if path.suffix != ".gz":
        with path.open("rb") as file:
            start = file.read(2)
    guess = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin-1"
    return UserError(
        f"{path} is not {encoding}: byte 0x{byte:02x} at offset {offset} is invalid. "
        f"Set text.encoding to its encoding, for example text.encoding={guess}."
    )


def file_type(path: Path) -> str:
    """The suffix in lower case, without .gz."""
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()
