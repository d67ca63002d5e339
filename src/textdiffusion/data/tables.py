"""Records of JSONL, CSV, TSV and Parquet files: the fields with a text, its source and its label."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import UserError

Fields = tuple[str, str, str]  # names of the fields with text, source and label; empty: there is none
Texts = tuple[str, str, str]  # their values in a record


def read_table(
    path: Path, file_type: str, chunks: Iterator[str], fields: Fields, columns: Sequence[str] | None = None
) -> Iterator[Texts]:
    """The records of a JSONL, CSV or TSV file. The first line of CSV and TSV names the columns, unless given.

    Raises UserError, with the number of the line, for a record that cannot be read.
    """
    if file_type == ".jsonl":
        yield from _read_jsonl(path, chunks, fields)
        return
    reader = _csv_reader(chunks, file_type, columns)
    try:
        names = reader.fieldnames or ()
        _check_columns(path, names, fields)
        for record in reader:
            if None in record:
                raise UserError(f"{path}, line {reader.line_num}: more values than columns ({', '.join(names)}).")
            yield record_texts(record, fields, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid {file_type[1:].upper()} ({error}).") from None


def _csv_reader(chunks: Iterable[str], file_type: str, columns: Sequence[str] | None = None) -> csv.DictReader[str]:
    """Quotation marks in TSV are ordinary text."""
    lines = (f"{line}\n" for line in _lines(chunks))
    if file_type == ".tsv":
        return csv.DictReader(lines, columns, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.DictReader(lines, columns, strict=True)


def _read_jsonl(path: Path, chunks: Iterator[str], fields: Fields) -> Iterator[Texts]:
    for number, line in enumerate(_lines(chunks), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}).") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: expected an object with fields, found {type(record).__name__}.")
        yield record_texts(record, fields, f"{path}, line {number}")


def read_parquet(path: Path, fields: Fields) -> Iterator[Texts]:
    """The rows of a Parquet file. Raises UserError if pyarrow or a field is missing."""
    file = _open_parquet(path)
    columns = _check_columns(path, file.schema_arrow.names, fields)
    rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(batch_size=256, columns=columns))
    for number, record in enumerate(rows, start=1):
        yield record_texts(record, fields, f"{path}, row {number}")


def record_texts(record: dict[str, Any], fields: Fields, location: str) -> Texts:
    """Text, source and label of a record, with \\n as line break; integers are valid labels.

    Raises UserError, beginning with `location`, if a field is missing or is not text.
    """
    field, source, label = fields
    if label and isinstance(record.get(label), int):
        record = {**record, label: str(record[label])}
    return _text(record, field, location), _text(record, source, location), _text(record, label, location)


def field_names(path: Path, file_type: str) -> str:
    """The names of a file's fields, as far as its first record shows."""
    if file_type == ".parquet":
        return ", ".join(_open_parquet(path).schema_arrow.names)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            line = file.readline().decode()
            is_jsonl = file_type == ".jsonl"
            record = json.loads(line) if is_jsonl else dict.fromkeys(_csv_reader([line], file_type).fieldnames or ())
        except (ValueError, OSError, EOFError):
            return "unknown"
    return ", ".join(record) if isinstance(record, dict) else "unknown"


def _check_columns(path: Path, columns: Sequence[str], fields: Fields) -> list[str]:
    for name in (names := [name for name in fields if name]):
        if name not in columns:
            raise UserError(f"{path} has no field {name!r}; its fields are: {', '.join(columns) or 'none'}.")
    return names


def _text(record: dict[str, Any], field: str, location: str) -> str:
    if not field:
        return ""
    if field not in record:
        raise UserError(f"{location}: no field {field!r}; the fields are: {', '.join(record) or 'none'}.")
    if not isinstance(text := record[field], str):
        problem = "has no value" if text is None else f"is {type(text).__name__}, not text"
        raise UserError(f"{location}: field {field!r} {problem}.")
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{location}: field {field!r} has a lone surrogate at character {error.start}.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split("\n")
        yield from lines
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
        raise UserError(f"{path} is not a Parquet file: {error}.") from None
