"""From the name of the data to a source, and from a source to the stream or the examples of a layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..core.errors import UserError
from .builtin.tasks import parse_task
from .config import TextConfig
from .normalisers import StreamingNormalizer, normalise
from .sources import Chunk, Files, Source, find_files


def open_source(data: str, config: TextConfig, cache: Path) -> Source:
    """The source named by `data`, with the options of `config`. Raises UserError if there is none."""
    name, _, detail = data.partition(":")
    if name == "hf" and detail:
        from .builtin.hub import download

        return download(detail, config, cache)
    if name == "shakespeare" and not detail:
        from .builtin import shakespeare

        return _built_in(data, config, shakespeare.source())
    if name == "grammar":
        from .builtin import grammar

        return _built_in(data, config, grammar.source(detail))
    if task := parse_task(data):
        return _built_in(data, config, task.source())
    return Files(data, find_files(data), config.fields, encoding=config.encoding, limit=config.limit)


def _built_in(name: str, config: TextConfig, source: Source) -> Source:
    for option in ("field", "source", "label", "encoding", "limit"):
        if getattr(config, option) != getattr(TextConfig, option):
            raise UserError(f"{option} has no effect on the built-in data {name}.")
    return source


@dataclass(frozen=True)
class Unit:
    """Normalised text that is not split further: a chunk of a stream, or an example with its source and label."""

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


def read_units(source: Source, config: TextConfig) -> Iterator[Unit]:
    """The normalised chunks of a stream, or the examples of another layout. Raises UserError for unreadable text."""
    return _stream_units(source, config) if config.layout == "stream" else _example_units(source, config)


def _stream_units(source: Source, config: TextConfig) -> Iterator[Unit]:
    """Consecutive documents, with a line break between them unless a document ends in one."""
    normaliser = StreamingNormalizer(config.normaliser)
    last: Chunk | None = None
    for chunk in source.chunks():
        if not chunk.text:
            continue
        if last and last.document != chunk.document and last.text[-1] != "\n":
            yield Unit(normaliser("\n"), last.document, last.file, last.bytes_read)
        last = chunk
        yield Unit(normaliser(chunk.text), chunk.document, chunk.file, chunk.bytes_read)


def _example_units(source: Source, config: TextConfig) -> Iterator[Unit]:
    """Lines or documents, without blank ones."""
    split = _lines if config.layout == "lines" else _documents
    for _, chunks in groupby(source.chunks(), key=lambda chunk: chunk.document):
        for chunk, text in split(chunks):
            text = normalise(config.normaliser, text)
            text = text.strip(" ") if config.normaliser == "text8" else text
            if text.strip():
                prompt = normalise(config.normaliser, chunk.source)
                yield Unit(text, chunk.document, chunk.file, chunk.bytes_read, prompt, chunk.label)


def _lines(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, str]]:
    """The lines of a document, each with the chunk that it ends in."""
    rest, chunk = "", None
    for chunk in chunks:
        *lines, rest = (rest + chunk.text).split("\n")
        for line in lines:
            yield chunk, line
    if chunk and rest:
        yield chunk, rest


def _documents(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, str]]:
    """The document as one text, with its last chunk."""
    parts = list(chunks)
    if parts:
        yield parts[-1], "".join(part.text for part in parts)


def unit_size(unit: Unit, config: TextConfig) -> int:
    """How far a unit moves the position that split bounds count: its characters in a stream, else one example."""
    return len(unit.text) if config.layout == "stream" else 1
