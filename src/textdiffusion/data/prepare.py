"""From a configuration to shards on disk, once; later runs with the same source and tokenizer find them again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..core.errors import UserError
from .config import TextConfig
from .dataset import Dataset, Resegment
from .documents import Unit, open_source, read_together, units
from .labels import Numbers, labels_beside
from .shards import Shard, ShardWriter, open_shard, verify
from .sources import Source
from .splits import SplitBounds, SplitCounter
from .stream import Stream
from .tokenizers.base import END, PAD, UNK, Bytes, Characters, Tokenizer, code_points, fingerprint
from .tokenizers.loading import load

FORMAT = 1  # of the cache: raise it when the same configuration would give other tokens


READ_ONLY_LATER = ("length", "packing", "model_padding", "too_long", "mask", "drop", "subword_sampling")


SMALL = 1 << 24  # bytes prepared without a progress bar: they take a second or two


@dataclass(frozen=True)
class Corpus:
    """A tokenizer and the data sets of a run; a part that was not asked for is None.

    `notes` are sentences for the user, such as how many examples were cut short.
    """

    config: TextConfig
    tokenizer: Tokenizer
    train: Dataset
    valid: Dataset | None
    test: Dataset | None
    folder: Path
    notes: tuple[str, ...] = ()

    def part(self, name: str) -> Dataset:
        """`train`, `valid` or `test`. Raises UserError where the configuration makes no such part."""
        dataset = {"train": self.train, "valid": self.valid, "test": self.test}[name]
        if dataset is None:
            raise UserError(f"{self.config.data} has no {name} part: {name}_fraction is 0.")
        return dataset


def default_cache() -> Path:
    """Where prepared text is kept between runs: TEXTDIFFUSION_CACHE, else a folder in the user's cache."""
    if path := os.environ.get("TEXTDIFFUSION_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textdiffusion"


def prepare(
    config: TextConfig,
    cache: Path,
    *,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
    trainable: bool = True,
    console: Console | None = None,
) -> Corpus:
    """Tokenise the configured text into shards under `cache` unless they are there, and open them.

    `tokenizer` is one that exists (a run's own), used instead of learning one from the training part. `seed` orders
    the training batches. `trainable`: the training part must hold at least one training window. Progress goes to
    `console` (None: standard error). Ranks may call this at the same time. Raises UserError for text that cannot be
    used; nothing half-done stays behind.
    """
    cache = Path(cache)
    folder = _prepared(config, cache, tokenizer, console or Console(stderr=True))
    used = load(folder / "tokenizer.json")
    parts: dict[str, Dataset | None] = {}
    notes: list[str] = []
    repeats = json.loads((folder / "corpus.json").read_text(encoding="utf-8")).get("repeated", {})
    for part in ("train", "valid", "test"):
        if part != "train" and not getattr(config, part) and not getattr(config, f"{part}_fraction"):
            parts[part] = None
            continue
        shard = open_shard(folder / f"{part}.tokens")
        name, labels = f"the {part} part of {config.data}", labels_beside(folder, part) if config.label else None
        dataset = open_dataset(shard, config, used, seed=seed, name=name, labels=labels)
        notes += [f"{part}: {note}" for note in dataset.notes]
        if count := repeats.get(part):
            notes.append(f"{part}: {count} of {shard.header.examples} examples are in the training part too")
        parts[part] = dataset
    train = parts["train"]
    assert train is not None
    if trainable:
        train.check_trainable()
    return Corpus(config, used, train, parts["valid"], parts["test"], folder, tuple(notes))


def _prepared(config: TextConfig, cache: Path, tokenizer: Tokenizer | None, console: Console) -> Path:
    """The folder with the shards, made if need be."""
    source = open_source(config.data, config, cache)
    others = {part: open_source(data, config, cache) for part in ("valid", "test") if (data := getattr(config, part))}
    key = _key(config, tokenizer, [source, *others.values()])
    folder = cache / key
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f".{key}.{secrets.token_hex(4)}"
    partial.mkdir()
    try:
        _fill(partial, config, source, others, tokenizer, console)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _key(config: TextConfig, tokenizer: Tokenizer | None, sources: list[Source]) -> str:
    """A name that changes whenever other tokens would come out."""
    options = {k: v for k, v in asdict(config).items() if k not in READ_ONLY_LATER}
    identity: list[Any] = [FORMAT, options, [source.identity() for source in sources]]
    if tokenizer is not None:
        identity.append(fingerprint(tokenizer))
    elif config.tokenizer_path:
        path = Path(config.tokenizer_path)
        files = sorted(path.glob("*.*")) if path.is_dir() else [path]
        identity.append([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()])
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _fill(
    folder: Path,
    config: TextConfig,
    source: Source,
    others: dict[str, Source],
    tokenizer: Tokenizer | None,
    console: Console,
) -> None:
    tally = SplitCounter(config)
    learner = None if tokenizer is not None else Learner(config)
    for unit in _watched(source, config, console, "Reading"):
        tally.add(unit)
        if learner:
            learner.look(unit)
    if not tally.total:
        raise UserError(f"{source.name} holds no text.")
    cuts = tally.cuts(source.name)
    if learner:
        learning = closing(_watched(source, config, console, "Learning from"))
        with learning as stream:
            tokenizer = learner.learn(_part(stream, config, cuts.train), cuts.train)
    assert tokenizer is not None
    if config.layout != "stream" and (tokenizer.end_id is None or tokenizer.pad_id is None):
        raise UserError(f"layout={config.layout} needs a tokenizer with an end and a padding token; this one has none.")
    tokenizer.save(folder / "tokenizer.json")
    _encode(folder, config, source, cuts, tokenizer, console)
    for part, other in others.items():
        whole = replace(config, valid="", test="")
        count = SplitCounter(whole)
        for unit in units(other, whole):
            count.add(unit)
        if not count.total:
            raise UserError(f"{other.name} holds no text.")
        with _writer(folder, part, config, tokenizer) as writer, Numbers(folder, part, config) as numbers:
            for unit in _watched(other, config, console, "Tokenising"):
                _write(writer, config, tokenizer, unit, f"the {part} text {other.name}")
                numbers.add(unit.label)
    for path in folder.glob("*.tokens"):
        verify(path)
    described = {"format": FORMAT, "source": source.identity(), "config": asdict(config), "cuts": asdict(cuts)}
    if config.layout != "stream":
        shards = {path.stem: open_shard(path) for path in sorted(folder.glob("*.tokens"))}
        train = shards.pop("train")
        described["repeated"] = {part: repeated(train, shard) for part, shard in shards.items()}
    (folder / "corpus.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _encode(
    folder: Path, config: TextConfig, source: Source, cuts: SplitBounds, tokenizer: Tokenizer, console: Console
) -> None:
    """One pass over the source, writing one shard after the other."""
    position = 0
    rest: Unit | None = None
    with closing(_watched(source, config, console, "Tokenising")) as stream:
        for part, (start, end) in cuts.spans().items():
            if start == end or position >= end:
                if getattr(config, f"{part}_fraction", 1) and not getattr(config, part, ""):
                    raise UserError(f"{source.name} is too short: its {part} part is empty.")
                continue
            with _writer(folder, part, config, tokenizer) as writer, Numbers(folder, part, config) as numbers:
                while position < end:
                    unit = rest or next(stream)
                    text, rest = unit.text, None
                    if config.layout == "stream" and position + len(text) > end:
                        at = _cut(text, end - position, config)
                        rest = replace(unit, text=text[at:]) if at < len(text) else None
                        unit = replace(unit, text=text[:at])
                    _write(writer, config, tokenizer, unit, f"the {part} part of {source.name}")
                    numbers.add(unit.label)
                    position += len(unit.text) if config.layout == "stream" else 1


def _part(stream: Iterator[Unit], config: TextConfig, end: int) -> Iterator[str]:
    """The text of the units before `end`."""
    position = 0
    for unit in stream:
        if position >= end:
            return
        if config.layout == "stream":
            yield unit.text[: _cut(unit.text, end - position, config)]
            position += len(unit.text)
        else:
            yield read_together(unit)
            position += 1


def _cut(text: str, at: int, config: TextConfig) -> int:
    """Where a piece is cut that should end at `at`: there, but whole words stay whole."""
    if config.tokenizer != "words" or at >= len(text):
        return min(at, len(text))
    space = re.compile(r"\s").search(text, at)
    return space.start() if space else len(text)


def _writer(folder: Path, part: str, config: TextConfig, tokenizer: Tokenizer) -> ShardWriter:
    return ShardWriter(folder / f"{part}.tokens", tokenizer.vocab_size, examples=config.layout != "stream")


def _write(writer: ShardWriter, config: TextConfig, tokenizer: Tokenizer, unit: Unit, where: str) -> None:
    try:
        ids, counts = tokenizer.encode_counted(unit.text)
        source = tokenizer.encode(unit.source)
    except UserError as error:
        raise UserError(f"In {where}: {error}") from None
    if config.layout == "stream":
        writer.write(ids, counts)
        return
    if config.layout == "documents" and counts is None:
        counts = np.ones_like(ids)
    # The end of a line is a character of the text, its line break; the end of a document is not.
    assert tokenizer.end_id is not None
    # A source ends as a text does; what is given has no characters to be measured.
    before = np.append(source, tokenizer.end_id) if config.source else source
    ids = np.concatenate([before, ids, [tokenizer.end_id]])
    if counts is not None:
        counts = np.concatenate([np.zeros_like(before), counts, [int(config.layout == "lines")]])
    writer.write(ids, counts)
    writer.end_example()


@contextmanager
def _progress(source: Source, console: Console, what: str) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=source.size < SMALL) as progress:
        task = progress.add_task(f"{what} {source.name}", total=source.size or None)
        yield lambda read: progress.update(task, completed=read)


def _watched(source: Source, config: TextConfig, console: Console, what: str) -> Generator[Unit]:
    with _progress(source, console, what) as advance:
        for unit in units(source, config):
            advance(unit.read)
            yield unit


def repeated(train: Shard, held_out: Shard) -> int:
    """How many examples of `held_out` are examples of `train`, token by token; both have the same tokenizer."""
    counts = Counter(_digests(held_out))  # of the smaller part, so that its digests are all the memory there is
    return sum(counts[digest] for digest in {digest for digest in _digests(train) if digest in counts})


def _digests(shard: Shard) -> Iterator[bytes]:
    assert shard.starts is not None
    for start, end in pairwise(shard.starts.tolist()):
        yield hashlib.blake2b(shard.tokens[start:end].tobytes(), digest_size=16).digest()


SUBWORDS = 4096  # the vocabulary size when none is given


class Learner:
    """Looks at all units once, then makes the tokenizer from those before the end of training.

    Where training ends is known only after all were seen, so the characters' first positions are kept.
    """

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self._position = 0
        self._seen = np.zeros(0x110000, dtype=bool)
        self._first: dict[str, int] = {}

    def look(self, unit: Unit) -> None:
        """Note the characters of the next unit."""
        if self.config.tokenizer not in ("characters", "wordpiece"):
            return
        text = read_together(unit)
        points = code_points(text)
        new = points[~self._seen[points]]
        for character in map(chr, np.unique(new)):
            inside = text.index(character) if self.config.layout == "stream" else 0
            self._first[character] = self._position + inside
        self._seen[new] = True
        self._position += len(unit.text) if self.config.layout == "stream" else 1

    def learn(self, training: Iterator[str], end: int) -> Tokenizer:
        """The tokenizer; `training` are the texts before position `end`. Raises UserError where it cannot be had."""
        config = self.config
        specials = () if config.layout == "stream" else (END, PAD)
        characters = [c for c, first in self._first.items() if first < end]
        if config.tokenizer == "characters":
            return Characters(characters, specials + ((UNK,) if config.unk else ()))
        if config.tokenizer == "bytes":
            return Bytes(specials)
        if config.tokenizer == "sentencepiece":
            from .tokenizers.sentencepiece import Pieces

            return Pieces.train(training, config.vocab_size or SUBWORDS, specials)
        from .tokenizers import loading, subwords

        if config.tokenizer == "file":
            return loading.load_any(Path(config.tokenizer_path), specials)
        if config.tokenizer == "words":
            return subwords.train_words(training, config.vocab_size, specials, unk=config.unk)
        vocab_size = config.vocab_size or SUBWORDS
        if config.tokenizer == "wordpiece":
            return subwords.train_wordpiece(training, vocab_size, specials, "".join(characters))
        return subwords.train_bpe(training, vocab_size, specials)


def open_dataset(
    shard: Shard, config: TextConfig, tokenizer: Tokenizer, *, seed: int, name: str, labels: np.ndarray | None = None
) -> Dataset:
    """The data set of a shard in the configured layout. Raises UserError where the shard does not suit it."""
    from .examples import Examples

    redraw = _redraw(tokenizer, config.subword_sampling) if config.subword_sampling else None
    if config.layout == "stream":
        return Stream(shard, config.length, tokenizer, seed=seed, name=name, redraw=redraw)
    return Examples(shard, config, tokenizer, seed=seed, name=name, redraw=redraw, labels=labels)


def _redraw(tokenizer: Tokenizer, alpha: float) -> Resegment:
    from .tokenizers.sentencepiece import Pieces

    if not isinstance(tokenizer, Pieces):
        raise UserError(f"subword_sampling needs a SentencePiece tokenizer; this one is {tokenizer.kind}.")
    return lambda ids, seed: tokenizer.redraw(ids, alpha, seed)
