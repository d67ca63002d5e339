"""From `--data` to a source, and from a source to the examples a layout wants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..core.errors import UserError
from .builtin.tasks import exercise
from .config import TextConfig
from .normalisers import StreamingNormalizer, normalise
from .sources import Chunk, Files, Source, find


def open_source(data: str, config: TextConfig, cache: Path) -> Source:
    """The source that `data` names, read as `config` says. Raises UserError where there is none."""
    name, _, detail = data.partition(":")
    if name == "hf" and detail:
        from .builtin.hub import spool

        return spool(detail, config, cache)
    if name == "shakespeare" and not detail:
        from .builtin import shakespeare

        return _built_in(data, config, shakespeare.source())
    if name == "grammar":
        from .builtin import grammar

        return _built_in(data, config, grammar.source(detail))
    if task := exercise(data):
        return _built_in(data, config, task.source())
    return Files(data, find(data), config.fields, encoding=config.encoding, limit=config.limit)


def _built_in(name: str, config: TextConfig, source: Source) -> Source:
    for option, default in (("field", ""), ("source", ""), ("label", ""), ("encoding", "utf-8"), ("limit", 0)):
        if getattr(config, option) != default:
            raise UserError(f"{option} has no effect on the built-in data {name}.")
    return source


@dataclass(frozen=True)
class Unit:
    """Normalised text that stays together: a piece of a stream, or a whole example with its source and label."""

    text: str
    document: int
    file: int
    read: int
    source: str = ""
    label: str = ""


def read_together(unit: Unit) -> str:
    """All text of a unit that a tokenizer has to know."""
    return f"{unit.source}\n{unit.text}" if unit.source else unit.text


def units(source: Source, config: TextConfig) -> Iterator[Unit]:
    """The normalised pieces of a stream, or the examples of the other layouts. Raises UserError for unreadable text."""
    return _stream(source, config) if config.layout == "stream" else _examples(source, config)


def _stream(source: Source, config: TextConfig) -> Iterator[Unit]:
    """Documents follow each other, with a line break between where one does not end in one."""
    normaliser = StreamingNormalizer(config.normaliser)
    before: Chunk | None = None
    for piece in source.pieces():
        if not piece.text:
            continue
        if before and before.document != piece.document and before.text[-1] != "\n":
            yield Unit(normaliser("\n"), before.document, before.file, before.read)
        before = piece
        yield Unit(normaliser(piece.text), piece.document, piece.file, piece.read)


def _examples(source: Source, config: TextConfig) -> Iterator[Unit]:
    """Lines or documents; blank ones are left out."""
    for _, pieces in groupby(source.pieces(), key=lambda piece: piece.document):
        for place, text in _lines(pieces) if config.layout == "lines" else _whole(pieces):
            text = normalise(config.normaliser, text)
            text = text.strip(" ") if config.normaliser == "text8" else text
            if text.strip():
                before = normalise(config.normaliser, place.source)
                yield Unit(text, place.document, place.file, place.read, before, place.label)


def _lines(pieces: Iterator[Chunk]) -> Iterator[tuple[Chunk, str]]:
    rest, piece = "", None
    for piece in pieces:
        *lines, rest = (rest + piece.text).split("\n")
        for line in lines:
            yield piece, line
    if piece and rest:
        yield piece, rest


def _whole(pieces: Iterator[Chunk]) -> Iterator[tuple[Chunk, str]]:
    parts = list(pieces)
    if parts:
        yield parts[-1], "".join(part.text for part in parts)
