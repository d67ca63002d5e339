"""Builds the files of a corpus: learns the tokenizer, encodes every part into a shard, and describes them in JSON."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..core.errors import UserError
from .config import TextConfig
from .documents import Unit, read_units, unit_size
from .labels import LabelWriter
from .repeats import count_repeats
from .shards import ShardWriter, open_shard, verify
from .sources import Source
from .splits import SplitBounds, SplitCounter, cut_unit, units_before
from .tokenizers.base import Tokenizer
from .tokenizers.learning import TokenizerLearner

FORMAT = 1  # of the cache: raise it when the same configuration would give other tokens
NO_PROGRESS_BELOW = 1 << 24  # bytes, which take a second or two


def build_corpus(
    folder: Path,
    config: TextConfig,
    source: Source,
    separate: dict[str, Source],
    tokenizer: Tokenizer | None,
    console: Console,
) -> None:
    """Write tokenizer.json, a shard for each part, their labels and corpus.json into an empty folder.

    `separate` are the sources of validation and test data that are not cut from `source`. Without a `tokenizer` one is
    learned from the training part. Raises UserError for text that cannot be used.
    """
    counter = SplitCounter(config)
    learner = None if tokenizer is not None else TokenizerLearner(config)
    for unit in _units_with_progress(source, config, console, "Reading"):
        counter.add(unit)
        if learner:
            learner.observe(unit)
    if not counter.total:
        raise UserError(f"{source.name} holds no text.")
    bounds = counter.bounds(source.name)
    if learner:
        with closing(_units_with_progress(source, config, console, "Learning from")) as units:
            texts = (unit.all_text for unit in units_before(bounds.train, units, config))
            tokenizer = learner.learn(texts, bounds.train)
    assert tokenizer is not None
    if config.layout != "stream" and (tokenizer.end_id is None or tokenizer.pad_id is None):
        raise UserError(f"layout={config.layout} needs a tokenizer with an end and a padding token; this one has none.")
    tokenizer.save(folder / "tokenizer.json")
    _encode_parts(folder, config, source, bounds, tokenizer, console)
    for part, separate_source in separate.items():
        _encode_separate(folder, part, config, separate_source, tokenizer, console)
    for path in folder.glob("*.tokens"):
        verify(path)
    described = {"format": FORMAT, "source": source.identity(), "config": asdict(config), "bounds": asdict(bounds)}
    if config.layout != "stream":
        shards = {path.stem: open_shard(path) for path in sorted(folder.glob("*.tokens"))}
        train = shards.pop("train")
        described["repeated"] = {part: count_repeats(train, shard) for part, shard in shards.items()}
    (folder / "corpus.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _encode_parts(
    folder: Path, config: TextConfig, source: Source, bounds: SplitBounds, tokenizer: Tokenizer, console: Console
) -> None:
    """One pass over the source that writes one part after the other."""
    position = 0
    rest: Unit | None = None
    with closing(_units_with_progress(source, config, console, "Tokenising")) as units:
        for part, (start, end) in bounds.spans().items():
            if start == end or position >= end:
                if getattr(config, f"{part}_fraction", 1) and not getattr(config, part, ""):
                    raise UserError(f"{source.name} is too short: its {part} part is empty.")
                continue
            with PartWriter(folder, part, config, tokenizer, f"the {part} part of {source.name}") as writer:
                while position < end:
                    unit, rest = cut_unit(rest or next(units), end - position, config)
                    writer.add(unit)
                    position += unit_size(unit, config)


def _encode_separate(
    folder: Path, part: str, config: TextConfig, source: Source, tokenizer: Tokenizer, console: Console
) -> None:
    with PartWriter(folder, part, config, tokenizer, f"the {part} text {source.name}") as writer:
        for unit in _units_with_progress(source, config, console, "Tokenising"):
            writer.add(unit)
    if not writer.count:
        raise UserError(f"{source.name} holds no text.")


class PartWriter:
    """Encodes the units of one part into a shard with labels. `name` appears in errors. A context manager."""

    def __init__(self, folder: Path, part: str, config: TextConfig, tokenizer: Tokenizer, name: str) -> None:
        self.config, self.tokenizer, self.name = config, tokenizer, name
        self.count = 0
        self._stack = ExitStack()
        examples = config.layout != "stream"
        path = folder / f"{part}.tokens"
        self._shard = self._stack.enter_context(ShardWriter(path, tokenizer.vocab_size, examples=examples))
        self._labels = self._stack.enter_context(LabelWriter(folder, part, config))

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, unit: Unit) -> None:
        """Append a unit. Raises UserError for text that the tokenizer cannot encode and for an unknown label."""
        try:
            tokens, char_counts = self.tokenizer.encode_counted(unit.text)
            source = self.tokenizer.encode(unit.source)
        except UserError as error:
            raise UserError(f"In {self.name}: {error}") from None
        if self.config.layout == "stream":
            self._shard.write(tokens, char_counts)
        else:
            self._write_example(tokens, char_counts, source)
        self._labels.add(unit.label)
        self.count += 1

    def _write_example(self, tokens: np.ndarray, char_counts: np.ndarray | None, source: np.ndarray) -> None:
        if self.config.layout == "documents" and char_counts is None:
            char_counts = np.ones_like(tokens)
        end_id = self.tokenizer.end_id
        assert end_id is not None
        if self.config.source:
            source = np.append(source, end_id)
        if char_counts is not None:
            # The end of a line is a character of the text, its line break; the end of a document is not. The source is
            # conditioning, so its characters do not count.
            end_chars = int(self.config.layout == "lines")
            char_counts = np.concatenate([np.zeros_like(source), char_counts, [end_chars]])
        self._shard.write(np.concatenate([source, tokens, [end_id]]), char_counts)
        self._shard.end_example()


def _units_with_progress(source: Source, config: TextConfig, console: Console, action: str) -> Generator[Unit]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=source.size < NO_PROGRESS_BELOW) as progress:
        task = progress.add_task(f"{action} {source.name}", total=source.size or None)
        for unit in read_units(source, config):
            progress.update(task, completed=unit.bytes_read)
            yield unit
