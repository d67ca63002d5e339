"""Documents from files, read lazily in pieces of bounded size."""

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

PIECE = 1 << 20  # bytes read at a time
LONGEST = 1 << 23  # characters without a line break before a piece is cut elsewhere
TEXT_SUFFIXES = (".txt", ".text", ".md")
TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Chunk:
    """Some consecutive text of one document, cut after a line break where there is one.

    `document` and `file` count from 0; `read` is the number of bytes read of the source so far. `source` is what a
    record's text answers to, `label` its label (empty: none).
    """

    text: str
    document: int
    file: int
    read: int
    source: str = ""
    label: str = ""


@runtime_checkable
class Source(Protocol):
    """Text that can be read any number of times, always the same."""

    name: str
    size: int
    """Bytes, as `Piece.read` counts them; 0 where unknown."""

    def pieces(self) -> Iterator[Chunk]: ...

    def identity(self) -> list[Any]:
        """JSON that changes when the text does."""
        ...


_Found = tuple[tuple[str, str, str], object, int]  # text, source and label; what changes with the document; bytes read


class Files:
    """Text, JSONL, CSV, TSV and Parquet files, each possibly gzipped. A text file is one document, a record another."""

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
        found = [path for path in paths if suffix(path) in TABLE_SUFFIXES]
        for option, value in zip(("field", "source", "label"), fields, strict=True):
            if value and not found:
                kinds = ", ".join(TABLE_SUFFIXES)
                raise UserError(f"{option}={value!r} has no effect on {name}: fields are for files in {kinds}.")
        if found and not fields[0]:
            names = tables.fields(found[0], suffix(found[0]))
            raise UserError(f"{found[0]} holds records: set text.field to the one with the text ({names}).")
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise UserError(f"There is no encoding {encoding!r}; utf-8, utf-16 and latin-1 are common.") from None

    def identity(self) -> list[Any]:
        files = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in self.paths]
        return [files, self.fields, self.encoding, self.limit]

    def pieces(self) -> Iterator[Chunk]:
        document = -1
        before = 0
        for number, path in enumerate(self.paths):
            last: object = None
            for (text, source, label), key, read in self._file(path):
                if key != last:
                    if self.limit and document + 1 == self.limit:
                        return
                    document, last = document + 1, key
                yield Chunk(text, document, number, before + read, source, label)
            before += path.stat().st_size

    def _file(self, path: Path) -> Iterator[_Found]:
        with path.open("rb") as raw:
            stream: io.BufferedIOBase = raw
            if path.suffix == ".gz":
                stream = gzip.GzipFile(fileobj=raw)
            try:
                yield from self._found(path, stream, raw.tell)
            except (gzip.BadGzipFile, EOFError) as error:
                raise UserError(f"{path} is no whole gzip file: {error}.") from None

    def _found(self, path: Path, stream: io.BufferedIOBase, tell: Callable[[], int]) -> Iterator[_Found]:
        kind = suffix(path)
        if kind == ".parquet":
            texts = tables.parquet(path, self.fields)
        elif kind in TABLE_SUFFIXES:
            texts = tables.lines(path, kind, decoded(path, stream, self.encoding), self.fields)
        else:
            for text in decoded(path, stream, self.encoding):
                yield (text, "", ""), 0, tell()
            return
        for number, record in enumerate(texts, start=1):
            yield record, number, tell()


class Documents:
    """A source made of documents in memory or generated, each one a file of its own for splitting."""

    def __init__(self, name: str, documents: Callable[[], Iterator[str]], identity: list[Any], size: int = 0) -> None:
        self.name, self._documents, self._identity, self.size = name, documents, identity, size

    def identity(self) -> list[Any]:
        return self._identity

    def pieces(self) -> Iterator[Chunk]:
        read = 0
        for number, text in enumerate(self._documents()):
            read += len(text)
            yield Chunk(text, number, number, read)


def find(name: str) -> list[Path]:
    """The files meant by a path, a folder (searched whole) or a glob, sorted. Raises UserError where none are."""
    path = Path(name).expanduser()
    if path.is_dir():
        paths = sorted(p for p in _walk(path) if suffix(p) in TEXT_SUFFIXES + TABLE_SUFFIXES)
        if not paths:
            kinds = ", ".join(TEXT_SUFFIXES + TABLE_SUFFIXES)
            raise UserError(f"The folder {name} holds no text: no file ends in {kinds} (or these with .gz).")
        return paths
    if path.exists():
        return [path]
    if glob.has_magic(name):
        if paths := sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()):
            return paths
        raise UserError(f"No file matches {name}.")
    raise UserError(
        f"There is no file or folder {name}; built in are shakespeare, grammar and tasks such as sudoku, "
        "hub data sets are hf:NAME."
    )


def _walk(folder: Path) -> Iterator[Path]:
    """The files in a folder and its folders, but for hidden ones."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def decoded(path: Path, stream: io.BufferedIOBase, encoding: str) -> Iterator[str]:
    """Text in pieces, cut after line breaks; \\r\\n and \\r become \\n, a byte order mark is dropped.

    Raises UserError with the offset of the first byte that is not in `encoding`.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read, waiting, first = 0, "", True
    while True:
        raw = stream.read(PIECE)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            raise _undecodable(path, encoding, read - pending + error.start, error.object[error.start]) from None
        read += len(raw)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        waiting += newlines.decode(text, final=not raw)
        if not raw:
            break
        cut = waiting.rfind("\n") + 1
        if not cut and len(waiting) >= LONGEST:
            cut = waiting.rfind(" ") + 1 or len(waiting)
        if cut:
            yield waiting[:cut]
            waiting = waiting[cut:]
    if waiting:
        yield waiting


def _undecodable(path: Path, encoding: str, offset: int, byte: int) -> UserError:
    start = b""
    if path.suffix != ".gz":
        with path.open("rb") as file:
            start = file.read(2)
    guess = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin-1"
    return UserError(
        f"{path} is not {encoding}: byte 0x{byte:02x} at offset {offset} cannot be read. "
        f"Set text.encoding to what it is, for example text.encoding={guess}."
    )


def suffix(path: Path) -> str:
    """What kind of file: the suffix, looking through .gz."""
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()
