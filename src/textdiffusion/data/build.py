"""Builds the files of a corpus: learns the tokenizer, encodes every part into a shard, and describes them in JSON."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise, takewhile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..core.errors import UserError
from .chat import ChatTemplate
from .checksums import write_checksums
from .config import TextConfig
from .documents import chat_template, read_units
from .labels import label_id, save_labels
from .prompt_lengths import save_prompt_lengths
from .shards import Shard, ShardWriter, open_shard, verify
from .sources import Chunk, Source
from .splits import SplitBounds, SplitCounter, split_units
from .tokenizers.base import Tokenizer
from .tokenizers.learning import TokenizerLearner
from .tokenizers.losses import Loss, encode_charged

FORMAT = 3  # of the cache: raise it when the same configuration would give other tokens
MAX_BLANK = 64  # characters for which it is checked whether a tokenizer has a token for any of them
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
    learned. Raises UserError for text that cannot be used.
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
        if learner.needs_characters:
            for separate_source in separate.values():
                for unit in _units_with_progress(separate_source, config, console, "Reading"):
                    learner.observe(unit)
        with closing(_units_with_progress(source, config, console, "Learning from")) as units:
            training = takewhile(lambda item: item[0] == "train", split_units(units, bounds, config))
            tokenizer = learner.learn(unit.all_text for _, unit in training)
    assert tokenizer is not None
    if config.layout != "stream" and (tokenizer.end_id is None or tokenizer.pad_id is None):
        raise UserError(f"layout={config.layout} needs a tokenizer with an end and a padding token; this one has none.")
    tokenizer.save(folder / "tokenizer.json")
    lost = {part: PartLoss() for part in config.parts}
    _encode_source(folder, config, source, bounds, tokenizer, console, lost)
    notes = source.notes()
    for part, separate_source in separate.items():
        units = _units_with_progress(separate_source, config, console, "Tokenising")
        name = f"the {part} text {separate_source.name}"
        if not _encode_part(units, folder, part, config, tokenizer, name, lost[part]):
            raise UserError(f"{separate_source.name} holds no text.")
        notes += separate_source.notes()
    for path in folder.glob("*.tokens"):
        verify(path)
    parts = [part for part in config.parts if (folder / f"{part}.tokens").exists()]
    if missing := [part for part in config.parts if part not in parts]:
        notes.append(f"{source.name} is too short to hold out text: it has no {' and no '.join(missing)} part")
    description = {"format": FORMAT, "source": source.identity(), "config": asdict(config), "bounds": asdict(bounds)}
    description["lost"] = {part: asdict(loss) for part, loss in lost.items() if loss.characters}
    description |= {"parts": parts, "notes": notes}
    if config.layout != "stream":
        shards = {path.stem: open_shard(path) for path in sorted(folder.glob("*.tokens"))}
        train = shards.pop("train")
        description["repeated"] = {part: _count_repeats(train, shard) for part, shard in shards.items()}
    (folder / "corpus.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    write_checksums(folder)


@dataclass
class PartLoss:
    """How many characters of a part the tokenizer loses, and an example: what is lost, and what it becomes."""

    characters: int = 0
    example: tuple[str, str] = ("", "")

    def add(self, loss: Loss) -> None:
        """Count the loss of a unit."""
        self.example = self.example if self.characters else loss.example
        self.characters += loss.characters


def _encode_source(
    folder: Path,
    config: TextConfig,
    source: Source,
    bounds: SplitBounds,
    tokenizer: Tokenizer,
    console: Console,
    lost: dict[str, PartLoss],
) -> None:
    """One pass over the source that writes one part after the other; an empty part is not written."""
    with closing(_units_with_progress(source, config, console, "Tokenising")) as units:
        for part, items in groupby(split_units(units, bounds, config), key=lambda item: item[0]):
            part_units = (unit for _, unit in items)
            _encode_part(part_units, folder, part, config, tokenizer, f"the {part} part of {source.name}", lost[part])


def _encode_part(
    units: Iterable[Chunk],
    folder: Path,
    part: str,
    config: TextConfig,
    tokenizer: Tokenizer,
    name: str,
    lost: PartLoss,
) -> int:
    """Write the shard and the labels of a part, called `name` in errors; returns the number of its units."""
    label_ids: list[int] = []
    prompt_lengths: list[int] = []
    template = chat_template(config)
    pending: Chunk | None = None  # text of a stream without a token of its own, such as a line break for BERT
    path = folder / f"{part}.tokens"
    with ShardWriter(path, tokenizer.vocab_size, examples=config.layout != "stream") as shard:
        for unit in units:
            if pending:
                unit = replace(unit, text=pending.text + unit.text)
            no_token = config.layout == "stream" and not len(tokenizer.encode(unit.text[:MAX_BLANK]))
            pending = unit if no_token and len(unit.text) <= MAX_BLANK else None
            if not pending:
                prompt_lengths.append(_write_unit(shard, unit, config, tokenizer, lost, template))
            try:
                label_ids.append(label_id(config, unit.label))
            except UserError as error:
                raise UserError(f"In {name}: {error}") from None
        if pending:
            _write_unit(shard, pending, config, tokenizer, lost)
    if config.label:
        save_labels(folder, part, label_ids)
    if config.has_prompts:
        save_prompt_lengths(folder, part, prompt_lengths)
    return len(label_ids)


def _write_unit(
    shard: ShardWriter,
    unit: Chunk,
    config: TextConfig,
    tokenizer: Tokenizer,
    lost: PartLoss,
    template: ChatTemplate | None = None,
) -> int:
    """Writes a unit, and returns how many of its tokens precede its text: its source with the end, or messages."""
    tokens, char_counts, loss = encode_charged(tokenizer, unit.text)
    lost_bits = None if loss is None else loss.bits
    if loss:
        lost.add(loss)
    if config.layout == "stream":
        shard.write(tokens, char_counts, lost_bits)
        return 0
    end_id = tokenizer.end_id
    assert end_id is not None
    ends = np.array([end_id])
    if template is not None:
        source, ends = template.encode(unit.messages, tokenizer), template.end_ids(tokenizer)
    elif config.source:
        source = np.append(tokenizer.encode(unit.source), end_id)
    else:
        source = np.zeros(0, dtype=np.int64)
    if config.layout == "documents" and char_counts is None:
        char_counts = np.ones_like(tokens)
    if char_counts is not None:
        # The end of a line is a character of the text, its line break; the end of a document is not. A source is
        # conditioning, so its characters do not count.
        end_chars = np.full_like(ends, config.layout == "lines")
        char_counts = np.concatenate([np.zeros_like(source), char_counts, end_chars])
    if lost_bits is not None:
        lost_bits = np.concatenate([np.zeros_like(source), lost_bits, np.zeros_like(ends)])
    shard.write(np.concatenate([source, tokens, ends]), char_counts, lost_bits)
    shard.end_example()
    return len(source)


def _units_with_progress(source: Source, config: TextConfig, console: Console, action: str) -> Generator[Chunk]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=source.size < NO_PROGRESS_BELOW) as progress:
        task = progress.add_task(f"{action} {source.name}", total=source.size or None)
        for unit in read_units(source, config):
            progress.update(task, completed=unit.bytes_read)
            yield unit


def _count_repeats(train: Shard, held_out: Shard) -> int:
    """How many examples of `held_out` equal an example of `train`, token by token; both use the same tokenizer."""
    counts = Counter(_digests(held_out))  # of the smaller part, since its digests are kept in memory
    return sum(counts[digest] for digest in {digest for digest in _digests(train) if digest in counts})


def _digests(shard: Shard) -> Iterator[bytes]:
    assert shard.starts is not None
    for start, end in pairwise(shard.starts.tolist()):
        yield hashlib.blake2b(shard.tokens[start:end].tobytes(), digest_size=16).digest()
