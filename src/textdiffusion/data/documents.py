"""From the name of the data to a source, and from a source to the stream or the examples of a layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from ..core.errors import UserError
from .builtin import grammar, shakespeare
from .builtin.hub import download
from .builtin.tasks import parse_task
from .chat import ChatTemplate, Message, named_template
from .config import TextConfig
from .known_texts import KnownText, content_hash
from .normalisers import StreamingNormalizer, normalise
from .paths import find_files
from .pipes import copy_pipe, is_pipe
from .sources import Chunk, Files, Source


def open_source(data: str, config: TextConfig, cache: Path) -> Source:
    """The source named by `data`, with the options of `config`. Raises UserError if there is none."""
    name, _, detail = data.partition(":")
    if name == "hf" and detail:
        return download(detail, config, cache)
    if name == "shakespeare" and not detail:
        return _built_in(data, config, shakespeare.source())
    if name == "grammar":
        return _built_in(data, config, grammar.source(detail))
    if task := parse_task(data):
        return _built_in(data, config, task.source())
    notes: list[str] = []
    paths = find_files(with_copied_pipe(data, config, cache), notes)
    return Files(
        data,
        paths,
        config.fields,
        encoding=config.encoding,
        limit=config.limit,
        skip_bad=config.skip_bad,
        notes=notes,
    )


def with_copied_pipes(config: TextConfig, cache: Path) -> TextConfig:
    """The configuration with text that can be read only once replaced by copies in the cache, which stay."""
    data, valid, test = (with_copied_pipe(name, config, cache) for name in (config.data, config.valid, config.test))
    return replace(config, data=data, valid=valid, test=test)


def with_copied_pipe(name: str, config: TextConfig, cache: Path) -> str:
    """The path of a copy in the cache, if the text of this name can be read only once; else the name."""
    return (
        str(copy_pipe(name, cache / "pipes", records=bool(config.field or config.messages)))
        if name and is_pipe(name)
        else name
    )


def same_text(name: str, other: str, config: TextConfig, cache: Path) -> bool:
    """Whether two names stand for files of the same content, or are equal.

    Of text that is missing, the content when it was last prepared counts.
    """
    if name == other:
        return True
    hashes = [_content_hashes(each, config, cache) for each in (name, other)]
    return hashes[0] is not None and hashes[0] == hashes[1]


def _content_hashes(name: str, config: TextConfig, cache: Path) -> list[str] | None:
    known = KnownText(cache, name, config)
    known.load_hashes()
    try:
        return [content_hash(path) for path in find_files(name)]
    except UserError:
        return [digest for _, digest in known.identity[0]] if known.identity else None


def names_files(data: str) -> bool:
    """Whether `data` names files on this machine, not a built-in source or one of the hub."""
    name, _, detail = data.partition(":")
    return not (
        (name == "hf" and detail) or (name == "shakespeare" and not detail) or name == "grammar" or parse_task(data)
    )


def _built_in(name: str, config: TextConfig, source: Source) -> Source:
    for option in ("field", "source", "messages", "label", "encoding", "limit", "skip_bad"):
        if getattr(config, option) != getattr(TextConfig, option):
            raise UserError(f"{option} has no effect on the built-in data {name}.")
    return source


def chat_template(config: TextConfig) -> ChatTemplate | None:
    """The template that writes the conversations of a text; None for other texts. Raises UserError as it is loaded."""
    return named_template(config.chat_template or "plain") if config.is_chat else None


def read_units(source: Source, config: TextConfig) -> Iterator[Chunk]:
    """Normalised text that is not split further: the chunks of a stream, or the examples of another layout.

    Raises UserError for unreadable text.
    """
    return _stream_units(source, config) if config.layout == "stream" else _example_units(source, config)


def unit_size(unit: Chunk, config: TextConfig) -> int:
    """How far a unit moves the position that split bounds count: its characters in a stream, else one example."""
    return len(unit.text) if config.layout == "stream" else 1


def _stream_units(source: Source, config: TextConfig) -> Iterator[Chunk]:
    """Consecutive documents, with a line break between them unless a document ends in one."""
    normaliser = StreamingNormalizer(config.normaliser)
    last: Chunk | None = None
    for chunk in source.chunks():
        if not chunk.text:
            continue
        if last and last.document != chunk.document and last.text[-1] != "\n":
            yield replace(last, text=normaliser("\n"))
        last = chunk
        yield replace(chunk, text=normaliser(chunk.text))


def _example_units(source: Source, config: TextConfig) -> Iterator[Chunk]:
    """Lines or documents, without blank ones."""
    split = _lines if config.layout == "lines" else _documents
    template = chat_template(config)
    for _, chunks in groupby(source.chunks(), key=lambda chunk: chunk.document):
        for chunk in split(chunks):
            if template is not None:
                yield from _answers(chunk, config, template)
                continue
            text = normalise(config.normaliser, chunk.text)
            text = text.strip(" ") if config.normaliser == "text8" else text
            if text.strip():
                yield replace(chunk, text=text, source=normalise(config.normaliser, chunk.source))


def _lines(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The lines of a document; a line belongs to the chunk that it ends in."""
    rest, chunk = "", None
    for chunk in chunks:
        *lines, rest = (rest + chunk.text).split("\n")
        for line in lines:
            yield replace(chunk, text=line)
    if chunk and rest:
        yield replace(chunk, text=rest)


def _documents(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The document as one chunk."""
    parts = list(chunks)
    yield replace(parts[-1], text="".join(part.text for part in parts))


def _answers(chunk: Chunk, config: TextConfig, template: ChatTemplate) -> Iterator[Chunk]:
    """The answers in a record: each with the messages before it, of which `source` is the text."""
    if config.messages:
        messages = [Message(*each) for each in json.loads(chunk.text)]
    else:
        messages = [Message("user", chunk.source), Message("assistant", chunk.text)]
    messages = [each._replace(content=normalise(config.normaliser, each.content)) for each in messages]
    for number, message in enumerate(messages):
        if message.role == "assistant" and number and message.content.strip():
            before = tuple(messages[:number])
            yield replace(chunk, text=message.content, source=template.render(before), messages=before)
