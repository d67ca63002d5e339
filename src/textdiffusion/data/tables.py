"""Records: the fields of JSONL, CSV, TSV and Parquet files that are text, a source or a label."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import UserError

Fields = tuple[str, str, str]  # the names of text, source and label; empty: there is none
Texts = tuple[str, str, str]  # what they hold


def lines(
    path: Path, kind: str, pieces: Iterator[str], fields: Fields, columns: Sequence[str] | None = None
) -> Iterator[Texts]:
    """The records of a JSONL, CSV or TSV file; of the latter the first line names the `columns` unless they are given.

    Raises UserError, with the line, for what cannot be read.
    """
    if kind == ".jsonl":
        yield from _jsonl(path, pieces, fields)
        return
    reader = _table(pieces, kind, columns)
    try:
        names = reader.fieldnames or ()
        _check(path, names, fields)
        for record in reader:
            if None in record:
                raise UserError(f"{path}, line {reader.line_num}: more values than columns ({', '.join(names)}).")
            yield texts_of(record, fields, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not {kind[1:].upper()} ({error}).") from None


def _table(pieces: Iterable[str], kind: str, columns: Sequence[str] | None = None) -> csv.DictReader[str]:
    """Quotes are text in TSV."""
    rows = (f"{line}\n" for line in _lines(pieces))
    if kind == ".tsv":
        return csv.DictReader(rows, columns, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.DictReader(rows, columns, strict=True)


def _jsonl(path: Path, pieces: Iterator[str], fields: Fields) -> Iterator[Texts]:
    for number, line in enumerate(_lines(pieces), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}).") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: a {type(record).__name__}, not an object with fields.")
        yield texts_of(record, fields, f"{path}, line {number}")


def parquet(path: Path, fields: Fields) -> Iterator[Texts]:
    """The rows of a Parquet file. Raises UserError where pyarrow or a field is missing."""
    file = _open_parquet(path)
    columns = _check(path, file.schema_arrow.names, fields)
    rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(batch_size=256, columns=columns))
    for number, record in enumerate(rows, start=1):
        yield texts_of(record, fields, f"{path}, row {number}")


def texts_of(record: dict[str, Any], fields: Fields, where: str) -> Texts:
    """Text, source and label of a record, line breaks as \\n; whole numbers are labels too.

    Raises UserError, beginning with `where`, where one is missing or no text.
    """
    field, source, label = fields
    if label and isinstance(record.get(label), int):
        record = {**record, label: str(record[label])}
    return _text(record, field, where), _text(record, source, where), _text(record, label, where)


def fields(path: Path, kind: str) -> str:
    """The names of a file's fields, as far as its beginning tells."""
    if kind == ".parquet":
        return ", ".join(_open_parquet(path).schema_arrow.names)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            first = file.readline().decode()
            record = json.loads(first) if kind == ".jsonl" else dict.fromkeys(_table([first], kind).fieldnames or ())
        except (ValueError, OSError, EOFError):
            return "its keys"
    return ", ".join(record) if isinstance(record, dict) else "its keys"


def _check(path: Path, columns: Sequence[str], fields: Fields) -> list[str]:
    for name in (names := [name for name in fields if name]):
        if name not in columns:
            raise UserError(f"{path} has no field {name!r}; it has {', '.join(columns) or 'none'}.")
    return names


def _text(record: dict[str, Any], field: str, where: str) -> str:
    if not field:
        return ""
    if field not in record:
        raise UserError(f"{where}: no field {field!r}; it has {', '.join(map(repr, record)) or 'none'}.")
    if not isinstance(text := record[field], str):
        said = "has no value" if text is None else f"is {type(text).__name__}, not text"
        raise UserError(f"{where}: field {field!r} {said}.")
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: field {field!r} has a lone surrogate at character {error.start}.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    if rest:
        yield rest


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
