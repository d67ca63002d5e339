"""Documents from files, read lazily in pieces of bounded size."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from textdiffusion.errors import UserError

PIECE = 1 << 20  # bytes read at a time
LONGEST = 1 << 23  # characters without a line break before a piece is cut elsewhere
TEXT_SUFFIXES = (".txt", ".text", ".md")
TABLE_SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Piece:
    """Some consecutive text of one document, cut after a line break where there is one.

    `document` and `file` count from 0; `read` is the number of bytes read of the source so far.
    """

    text: str
    document: int
    file: int
    read: int


@runtime_checkable
class Source(Protocol):
    """Text that can be read any number of times, always the same."""

    name: str
    size: int
    """Bytes, as `Piece.read` counts them; 0 where unknown."""

    def pieces(self) -> Iterator[Piece]: ...

    def identity(self) -> list[Any]:
        """JSON that changes when the text does."""
        ...


_Found = tuple[str, object, int]  # text, a key that changes with the document, and the bytes read


class Files:
    """Text, JSONL and Parquet files, each possibly gzipped. A text file is one document; a record is one document."""

    def __init__(self, name: str, paths: list[Path], *, field: str = "", encoding: str = "utf-8", limit: int = 0):
        self.name, self.paths, self.field, self.encoding, self.limit = name, paths, field, encoding, limit
        self.size = sum(path.stat().st_size for path in paths)
        tables = [path for path in paths if _suffix(path) in TABLE_SUFFIXES]
        if field and not tables:
            raise UserError(f"field={field!r} has no effect on {name}: fields are for .jsonl and .parquet files.")
        if tables and not field:
            raise UserError(f"{tables[0]} holds records: name the field with the text (one of {_fields(tables[0])}).")
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise UserError(f"There is no encoding {encoding!r}; utf-8, utf-16 and latin-1 are common.") from None

    def identity(self) -> list[Any]:
        files = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in self.paths]
        return [files, self.field, self.encoding, self.limit]

    def pieces(self) -> Iterator[Piece]:
        document = -1
        before = 0
        for number, path in enumerate(self.paths):
            last: object = None
            for text, key, read in self._file(path):
                if key != last:
                    if self.limit and document + 1 == self.limit:
                        return
                    document, last = document + 1, key
                yield Piece(text, document, number, before + read)
            before += path.stat().st_size

    def _file(self, path: Path) -> Iterator[_Found]:
        readers = {".jsonl": self._jsonl, ".parquet": self._parquet}
        with path.open("rb") as raw:
            stream: io.BufferedIOBase = raw
            if path.suffix == ".gz":
                stream = gzip.GzipFile(fileobj=raw)
            try:
                yield from readers.get(_suffix(path), self._text)(path, stream, raw.tell)
            except (gzip.BadGzipFile, EOFError) as error:
                raise UserError(f"{path} is no whole gzip file: {error}.") from None

    def _text(self, path: Path, stream: io.BufferedIOBase, tell: Callable[[], int]) -> Iterator[_Found]:
        for text in decoded(path, stream, self.encoding):
            yield text, 0, tell()

    def _jsonl(self, path: Path, stream: io.BufferedIOBase, tell: Callable[[], int]) -> Iterator[_Found]:
        for number, line in enumerate(_lines(decoded(path, stream, self.encoding)), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}).") from None
            if not isinstance(record, dict):
                raise UserError(f"{path}, line {number}: a {type(record).__name__}, not an object with fields.")
            yield text_of(record, self.field, f"{path}, line {number}"), number, tell()

    def _parquet(self, path: Path, stream: io.BufferedIOBase, tell: Callable[[], int]) -> Iterator[_Found]:
        parquet = _open_parquet(path)
        if self.field not in (names := parquet.schema_arrow.names):
            raise UserError(f"{path} has no field {self.field!r}; it has {', '.join(names)}.")
        number = 0
        for batch in parquet.iter_batches(batch_size=256, columns=[self.field]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield text_of({self.field: value}, self.field, f"{path}, row {number}"), number, tell()


class Documents:
    """A source made of documents in memory or generated, each one a file of its own for splitting."""

    def __init__(self, name: str, documents: Callable[[], Iterator[str]], identity: list[Any], size: int = 0) -> None:
        self.name, self._documents, self._identity, self.size = name, documents, identity, size

    def identity(self) -> list[Any]:
        return self._identity

    def pieces(self) -> Iterator[Piece]:
        read = 0
        for number, text in enumerate(self._documents()):
            read += len(text)
            yield Piece(text, number, number, read)


def find(name: str) -> list[Path]:
    """The files meant by a path, a folder (searched whole) or a glob, sorted. Raises UserError where none are."""
    path = Path(name).expanduser()
    if path.is_dir():
        paths = sorted(p for p in _walk(path) if _suffix(p) in TEXT_SUFFIXES + TABLE_SUFFIXES)
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
        f"Name its encoding, for example --encoding {guess}."
    )


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest


def text_of(record: dict[str, Any], field: str, where: str) -> str:
    """The text of a record, line breaks as \\n. Raises UserError, beginning with `where`, where there is none."""
    if field not in record:
        raise UserError(f"{where}: no field {field!r}; it has {', '.join(map(repr, record)) or 'none'}.")
    if not isinstance(text := record[field], str):
        raise UserError(f"{where}: field {field!r} is {type(text).__name__}, not text.")
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: field {field!r} has a lone surrogate at character {error.start}.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _fields(path: Path) -> str:
    if _suffix(path) == ".parquet":
        return ", ".join(_open_parquet(path).schema_arrow.names)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            record = json.loads(file.readline())
        except (ValueError, OSError, EOFError):
            return "its keys"
    return ", ".join(record) if isinstance(record, dict) else "its keys"


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"Reading {path} needs pyarrow: pip install 'textdiffusion[hf]'.") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no Parquet file: {error}.") from None


def _suffix(path: Path) -> str:
    """What kind of file: the suffix, looking through .gz."""
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()
