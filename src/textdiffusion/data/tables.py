"""Records of JSONL, JSON, CSV, TSV and Parquet files: the fields with a text, its source and its label."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

from ..core.errors import UserError
from .chat import parse_messages

Fields = tuple[str, ...]  # names of the fields with text, source and label; empty: there is none; a fourth: messages
Texts = tuple[str, str, str]  # their values in a record
OnBad = Callable[[UserError], None]
"""Receives the error of a record that cannot be read; returns to skip the record, or raises."""

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Files that hold records; a .json file may hold them too (`is_json_array`)."""
MAX_FIELD = (1 << 31) - 1  # characters of a field of CSV
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_ARRAY = re.compile(r"\s*\[\s*(\{|\Z)")
_SPACE = re.compile(r"\s*")


class MissingField(UserError):
    """A file of records lacks a column."""


def raise_error(error: UserError) -> NoReturn:
    """The `OnBad` that accepts no bad record."""
    raise error


def read_table(
    path: Path,
    file_type: str,
    chunks: Iterator[str],
    fields: Fields,
    columns: Sequence[str] | None = None,
    *,
    quoted: bool = True,
    on_bad: OnBad = raise_error,
) -> Iterator[Texts]:
    """The records of a JSONL, JSON, CSV or TSV file. The first line of CSV and TSV names the columns, unless given.

    `quoted`: quotation marks enclose fields, as the rules of CSV have it (`follows_quotes`). A record that cannot be
    read becomes a UserError with the number of its line, for `on_bad`.
    """
    if file_type == ".json":
        yield from _read_json(path, chunks, fields, on_bad)
    elif file_type in (".jsonl", ".ndjson"):
        yield from _read_jsonl(path, chunks, fields, on_bad)
    else:
        yield from _read_csv(path, file_type, chunks, fields, columns, quoted, on_bad)


def _read_csv(
    path: Path,
    file_type: str,
    chunks: Iterator[str],
    fields: Fields,
    columns: Sequence[str] | None,
    quoted: bool,
    on_bad: OnBad,
) -> Iterator[Texts]:
    reader = _CSVReader(chunks, file_type, columns, quoted, [name for name in fields if name])
    _check_columns(path, reader.columns, fields)
    names = ", ".join(reader.columns)
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            on_bad(UserError(f"{path}, line {reader.line}: not valid {file_type[1:].upper()} ({error})."))
            continue
        if values is None:
            return
        location = f"{path}, line {reader.line}"
        try:
            if len(values) > len(reader.columns):
                raise UserError(f"{location}: more values than columns ({names}).")
            record = dict(zip(reader.columns, [*values, *[None] * (len(reader.columns) - len(values))], strict=True))
            texts = record_texts(record, fields, location)
        except UserError as error:
            on_bad(error)
            continue
        yield texts


class _CSVReader:
    """Rows of CSV or TSV as lists, without blank lines, from text in chunks.

    A .csv file may separate its columns by semicolons or tabs instead, if its first line has the `wanted` columns then.
    """

    def __init__(
        self,
        chunks: Iterable[str],
        file_type: str,
        columns: Sequence[str] | None = None,
        quoted: bool = True,
        wanted: Sequence[str] = (),
    ) -> None:
        lines = split_lines(chunks)
        first = list(islice(lines, 1))
        delimiter = _DELIMITERS[file_type]
        if file_type == ".csv" and first and wanted:
            fits = (each for each in ",;\t" if {*wanted} <= {name.strip('"') for name in first[0].split(each)})
            delimiter = next(fits, delimiter)
        texts = (f"{line}\n" for line in chain(first, lines))
        if quoted:
            self._reader = csv.reader(texts, delimiter=delimiter, strict=True)
        else:
            self._reader = csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        try:
            self.columns = list(columns) if columns is not None else next(self, [])
        except csv.Error:
            self.columns = []

    @property
    def line(self) -> int:
        """The number of the last line read."""
        return self._reader.line_num

    def __iter__(self) -> _CSVReader:
        return self

    def __next__(self) -> list[str]:
        limit = csv.field_size_limit(MAX_FIELD)  # a setting of the whole process
        try:
            while not (row := next(self._reader)):
                pass
            return row
        finally:
            csv.field_size_limit(limit)


def follows_quotes(chunks: Iterable[str], columns: Sequence[str] | None = None) -> bool:
    """Whether the quotation marks of a TSV file enclose fields; in other such files they are ordinary text.

    They do if every field that begins with one also ends with one, and every record then has all columns.
    """
    reader = _CSVReader(chunks, ".tsv", columns)
    try:
        return bool(reader.columns) and all(len(row) == len(reader.columns) for row in reader)
    except csv.Error:
        return False


def _read_jsonl(path: Path, chunks: Iterator[str], fields: Fields, on_bad: OnBad) -> Iterator[Texts]:
    for number, line in enumerate(split_lines(chunks), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number}"
        try:
            texts = _object_texts(_parse_json(line, location), fields, location)
        except UserError as error:
            on_bad(error)
            continue
        yield texts


def _read_json(path: Path, chunks: Iterator[str], fields: Fields, on_bad: OnBad) -> Iterator[Texts]:
    """The objects of an array, one after the other; the memory needed is one of them and a chunk."""
    parser = _ArrayParser(path, chunks)
    for number, record in enumerate(parser, start=1):
        location = f"{path}, record {number}, line {parser.line}"
        try:
            texts = _object_texts(record, fields, location)
        except UserError as error:
            on_bad(error)
            continue
        yield texts


class _ArrayParser:
    """The values of a JSON array in a text in chunks. Raises UserError where it is not one."""

    def __init__(self, path: Path, chunks: Iterator[str]) -> None:
        self.path, self.line = path, 1
        self._chunks, self._text, self._ended = chunks, "", False
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[Any]:
        if self._peek() != "[":
            raise UserError(f"{self.path} is not an array of records: a .json file must begin with '['.")
        self._skip(1)
        if self._peek() == "]":
            return
        while True:
            yield self._value()
            separator = self._peek()
            self._skip(1)
            if separator == "]":
                return
            if separator != ",":
                raise self._invalid("expected ',' or ']' after a record")

    def _value(self) -> Any:
        self._peek()
        size = 1
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text)
                if end < len(self._text) or self._ended:  # else a number might go on
                    self._skip(end)
                    return value
            except RecursionError:
                raise self._invalid("nested too deeply") from None
            except ValueError as error:
                if self._ended:
                    raise self._invalid(str(error)) from None
            size = max(2 * size, 2 * len(self._text))  # so that the time is linear in the length of a record
            while len(self._text) < size and not self._ended:
                self._read()

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            match = _SPACE.match(self._text)
            self._skip(match.end() if match else 0)
            if self._text or self._ended:
                return self._text[:1]
            self._read()

    def _skip(self, count: int) -> None:
        self.line += self._text.count("\n", 0, count)
        self._text = self._text[count:]

    def _read(self) -> None:
        chunk = next(self._chunks, None)
        self._ended = chunk is None
        self._text += chunk or ""

    def _invalid(self, problem: str) -> UserError:
        return UserError(f"{self.path}, from line {self.line}: not valid JSON ({problem}).")


def is_json_array(start: str) -> bool:
    """Whether a text that begins like this is a JSON array of objects."""
    return _ARRAY.match(start) is not None


def _parse_json(line: str, location: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise UserError(f"{location}: not valid JSON (nested too deeply).") from None
    except ValueError as error:
        raise UserError(f"{location}: not valid JSON ({error}).") from None


def _object_texts(record: Any, fields: Fields, location: str) -> Texts:
    if not isinstance(record, dict):
        raise UserError(f"{location}: expected an object with fields, found {type(record).__name__}.")
    return record_texts(record, fields, location)


def read_parquet(path: Path, fields: Fields, on_bad: OnBad = raise_error) -> Iterator[Texts]:
    """The rows of a Parquet file. Raises UserError if pyarrow or a field is missing, or the file is damaged."""
    file = _open_parquet(path)
    columns = _check_columns(path, file.schema_arrow.names, fields)
    batches = file.iter_batches(batch_size=256, columns=columns)
    for number, record in enumerate(chain.from_iterable(_parquet_rows(path, batches)), start=1):
        try:
            texts = record_texts(record, fields, f"{path}, row {number}")
        except UserError as error:
            on_bad(error)
            continue
        yield texts


def _parquet_rows(path: Path, batches: Iterator[Any]) -> Iterator[list[dict[str, Any]]]:
    import pyarrow

    try:
        for batch in batches:
            yield batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is a damaged Parquet file: {error}.") from None


def record_texts(record: dict[str, Any], fields: Fields, location: str) -> Texts:
    """Text, source and label of a record, with \\n as line break.

    Numbers are valid labels; a label that is missing, null, NaN or blank is an empty string, which means unlabelled.
    The text of a conversation is its messages in JSON. Raises UserError, beginning with `location`, if another field is
    missing or is not text.
    """
    field, source, label, *messages = fields
    if messages:
        record = {**record, messages[0]: _messages(record, messages[0], location)}
        field = messages[0]
    if label:
        record = {**record, label: _label(record.get(label))}
    return _text(record, field, location), _text(record, source, location), _text(record, label, location)


def _messages(record: dict[str, Any], field: str, location: str) -> str:
    """The messages in JSON, which CSV has as such a text."""
    if field not in record:
        raise UserError(f"{location}: no field {field!r}; the fields are: {', '.join(record) or 'none'}.")
    value = record[field]
    if isinstance(value, str):
        value = _parse_json(value, f"{location}: field {field!r}")
    return json.dumps(parse_messages(value, f"{location}: field {field!r}"))


def _label(value: Any) -> Any:
    is_nan = isinstance(value, float) and math.isnan(value)
    if value is None or is_nan or (isinstance(value, str) and value.isspace()):
        return ""
    return str(value) if isinstance(value, (int, float)) else value


def field_names(path: Path, file_type: str, chunks: Iterable[str] = ()) -> str:
    """The names of a file's fields, as far as its first record shows. `chunks` is its text, unless it is Parquet."""
    if file_type == ".parquet":
        return ", ".join(_open_parquet(path).schema_arrow.names)
    if file_type in _DELIMITERS:
        return ", ".join(_CSVReader(chunks, file_type).columns) or "unknown"
    try:
        if file_type == ".json":
            record = next(iter(_ArrayParser(path, iter(chunks))), None)
        else:
            record = _parse_json(next(filter(str.strip, split_lines(chunks)), ""), "")
    except UserError:
        return "unknown"
    return ", ".join(record) if isinstance(record, dict) and record else "unknown"


def _check_columns(path: Path, columns: Sequence[str], fields: Fields) -> list[str]:
    for name in (names := [name for name in fields if name]):
        if name not in columns:
            raise MissingField(f"{path} has no field {name!r}; its fields are: {', '.join(columns) or 'none'}.")
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


def split_lines(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a text in chunks, without line breaks."""
    pending: list[str] = []  # chunks of an unfinished line, joined only once
    for chunk in chunks:
        first, *lines = chunk.split("\n")
        pending.append(first)
        if lines:
            yield "".join(pending)
            yield from lines[:-1]
            pending = [lines[-1]]
    if rest := "".join(pending):
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
