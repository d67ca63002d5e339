"""Documents from files or from memory, read lazily in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..core.errors import UserError
from . import tables
from .chat import Message
from .compression import file_type, open_decompressed
from .encodings import Reading, choose_reading, decode_chunks, parse_encodings
from .known_texts import content_hash, file_size
from .tables import TABLE_SUFFIXES


@dataclass(frozen=True)
class Chunk:
    """Consecutive text of one document, cut after a line break if there is one.

    `document` and `file` count from 0; `bytes_read` is the progress within the source so far. `source` is the prompt
    and `label` the label of a record (empty: none). `messages` are those that the text answers, which `source` has as
    one text then.
    """

    text: str
    document: int
    file: int
    bytes_read: int
    source: str = ""
    label: str = ""
    messages: tuple[Message, ...] = ()

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
        """JSON that changes when the text does, and only then: where the text lies does not count."""
        ...

    def notes(self) -> list[str]:
        """What the user should know about the text that was read last, such as what was skipped."""
        ...


class Files:
    """Text, JSONL, JSON, CSV, TSV and Parquet files, also compressed. Each text file and each record is one document.

    `skip_bad` leaves out what cannot be read (files, records, bytes), and `notes` counts it; else it is a UserError.
    """

    def __init__(
        self,
        name: str,
        paths: list[Path],
        fields: tables.Fields = ("", "", ""),
        *,
        encoding: str = "utf-8",
        limit: int = 0,
        skip_bad: bool = False,
        notes: list[str] | None = None,
    ) -> None:
        self.name, self.paths, self.fields, self.limit, self.skip_bad = name, paths, fields, limit, skip_bad
        self.encodings = parse_encodings(encoding)
        self._found = list(notes or ())
        self._readings: dict[Path, Reading] = {}
        self._bad: list[UserError] = []
        self._num_bad = 0
        self.size = sum(file_size(path) for path in paths)
        table = next((path for path in paths if self._is_table(path)), None)
        for option, value in zip(("field", "source", "label", "messages"), fields, strict=False):
            if value and table is None:
                kinds = ", ".join((*TABLE_SUFFIXES, ".json"))
                raise UserError(f"{option}={value!r} has no effect on {name}: only {kinds} files have fields.")
        if table is not None and not self._has_text_field:
            raise UserError(
                f"{table} holds records. Set text.field to the field with the text (text.messages, if it holds "
                f"conversations); the fields are "
                f"{self._field_names(table)}. To read the file as it is, pipe it in: --data - < FILE."
            )

    def identity(self) -> list[Any]:
        files = [[file_type(path), content_hash(path)] for path in self.paths]
        return [files, self.fields, self.encodings, self.limit, self.skip_bad]

    def notes(self) -> list[str]:
        readings = [reading.note for reading in self._readings.values() if reading.note]
        shown = readings[:5] + [f"{len(readings) - 5} more files like these"] * (len(readings) > 5)
        skipped = []
        if self._num_bad:
            skipped = [f"{self.name}: {self._num_bad} bad records or files skipped; the first: {self._bad[0]}"]
        return [*self._found, *shown, *skipped]

    def chunks(self) -> Iterator[Chunk]:
        document = -1
        bytes_before = 0
        self._bad, self._num_bad = [], 0
        for number, path in enumerate(self.paths):
            last_record = None
            with closing(self._records_or_skip(path)) as records:
                for bytes_read, record, (text, source, label) in records:
                    if record != last_record:
                        if self.limit and document + 1 == self.limit:
                            return
                        document, last_record = document + 1, record
                    yield Chunk(text, document, number, bytes_before + bytes_read, source, label)
            bytes_before += file_size(path)

    def _records_or_skip(self, path: Path) -> Generator[tuple[int, int, tables.Texts]]:
        try:
            yield from self._records(path)
        except UserError as error:
            if not self.skip_bad and len(self.paths) == 1:  # skipping it would leave nothing
                raise
            self._on_bad(error)

    def _records(self, path: Path) -> Iterator[tuple[int, int, tables.Texts]]:
        """Bytes read so far, the number of the record (0 in a text file), and its text, source and label."""
        kind = file_type(path)
        with open_decompressed(path) as (raw, stream):
            if kind == ".parquet":
                records = enumerate(tables.read_parquet(path, self.fields, self._on_bad), start=1)
            elif self._is_table(path):
                quoted = kind != ".tsv" or tables.follows_quotes(self._decoded(path))
                chunks = decode_chunks(stream, self._reading(path))
                table = tables.read_table(path, kind, chunks, self.fields, quoted=quoted, on_bad=self._on_bad)
                records = enumerate(table, start=1)
            else:
                records = ((0, (text, "", "")) for text in decode_chunks(stream, self._reading(path)))
            for record, texts in records:
                yield raw.tell(), record, texts

    def _on_bad(self, error: UserError) -> None:
        if not self.skip_bad:
            if isinstance(error, tables.MissingField) or "text.skip_bad" in str(error):
                raise error
            raise UserError(f"{error} text.skip_bad=true skips what cannot be read.") from None
        self._num_bad += 1
        self._bad = self._bad or [error]

    def _reading(self, path: Path) -> Reading:
        if path not in self._readings:
            self._readings[path] = choose_reading(
                path, lambda: open_decompressed(path), self.encodings, lenient=self.skip_bad
            )
        return self._readings[path]

    def _decoded(self, path: Path) -> Iterator[str]:
        with open_decompressed(path) as (_, stream):
            yield from decode_chunks(stream, self._reading(path))

    def _is_table(self, path: Path) -> bool:
        kind = file_type(path)
        if kind != ".json":
            return kind in TABLE_SUFFIXES
        return self._has_text_field or tables.is_json_array(next(self._decoded(path), ""))

    @property
    def _has_text_field(self) -> bool:
        return bool(self.fields[0] or self.fields[3:])

    def _field_names(self, path: Path) -> str:
        return tables.field_names(path, file_type(path), () if file_type(path) == ".parquet" else self._decoded(path))


class Documents:
    """Documents in memory or generated; each counts as a file of its own when the data are split."""

    def __init__(self, name: str, documents: Callable[[], Iterator[str]], identity: list[Any], size: int = 0) -> None:
        self.name, self._documents, self._identity, self.size = name, documents, identity, size

    def identity(self) -> list[Any]:
        return self._identity

    def notes(self) -> list[str]:
        return []

    def chunks(self) -> Iterator[Chunk]:
        characters = 0
        for number, text in enumerate(self._documents()):
            characters += len(text)
            yield Chunk(text, number, number, characters)
