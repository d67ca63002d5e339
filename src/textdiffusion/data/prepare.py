"""From a configuration to shards on disk, once; later runs with the same source and tokenizer reuse them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..core.errors import UserError
from ..core.files import make_folder, writing
from ..core.terminal import TextConsole
from .build import FORMAT, build_corpus
from .choices import choose
from .config import TextConfig
from .dataset import Dataset
from .documents import open_source
from .examples import Examples
from .labels import load_labels
from .shards import open_shard
from .sources import Source
from .stream import Stream
from .tokenizers.base import Tokenizer, fingerprint
from .tokenizers.loading import load

# Settings that apply when batches are read, so that the shards do not depend on them.
READING_SETTINGS = {"length", "packing", "model_padding", "too_long", "mask", "condition_dropout", "subword_sampling"}


@dataclass(frozen=True)
class Corpus:
    """A tokenizer and the data sets of a run; None for a part that the configuration leaves empty.

    `notes` are messages for the user, such as how many examples were truncated.
    """

    config: TextConfig
    tokenizer: Tokenizer
    train: Dataset
    valid: Dataset | None
    test: Dataset | None
    folder: Path
    notes: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each part in tokens, by its name."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part.shard.header.sha256 for name, part in parts.items() if part is not None}

    def part(self, name: str) -> Dataset:
        """`train`, `valid` or `test`. Raises UserError if the configuration leaves the part empty."""
        dataset = {"train": self.train, "valid": self.valid, "test": self.test}[name]
        if dataset is None:
            raise UserError(f"{self.config.data} has no {name} part: {name}_fraction is 0.")
        return dataset


def default_cache() -> Path:
    """The folder for prepared text: TEXTDIFFUSION_CACHE, else a folder in the user's cache."""
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
    """Tokenise the configured text into shards under `cache`, unless they exist, and open them.

    What the configuration leaves to the text is chosen (`choices.choose`); the corpus has the completed one.

    `tokenizer` replaces learning one from the training part. `seed` determines the order of the training batches.
    `trainable` requires at least one training window. Progress is shown on `console` (None: standard error). Several
    processes may call this at the same time. Raises UserError for text that cannot be used; no partial files remain.
    """
    config, _ = choose(config, Path(cache))
    folder = _prepared_folder(config, Path(cache), tokenizer, console or TextConsole(stderr=True))
    tokenizer = load(folder / "tokenizer.json")
    description = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    repeats, lost = description.get("repeated", {}), description.get("lost", {})
    datasets: dict[str, Dataset] = {}
    notes: list[str] = []
    for part in config.parts:
        shard = open_shard(folder / f"{part}.tokens")
        name = f"the {part} part of {config.data}"
        if config.layout == "stream":
            dataset: Dataset = Stream(shard, config, tokenizer, seed=seed, name=name)
        else:
            labels = load_labels(folder, part) if config.label else None
            dataset = Examples(shard, config, tokenizer, seed=seed, name=name, labels=labels)
        datasets[part] = dataset
        notes += [f"{part}: {note}" for note in dataset.notes]
        if loss := lost.get(part):
            notes.append(f"{part}: {_loss_note(**loss, total=shard.header.chars)}")
        if count := repeats.get(part):
            notes.append(f"{part}: {count} of {shard.header.examples} examples are also in the training part")
    train = datasets["train"]
    if trainable:
        train.check_trainable()
    return Corpus(config, tokenizer, train, datasets.get("valid"), datasets.get("test"), folder, tuple(notes))


def _loss_note(characters: int, example: list[str], total: int) -> str:
    original, decoded = ((text if len(text) <= 20 else text[:20] + "...") for text in example)
    fraction = characters / max(total, characters)
    return (
        f"the tokenizer loses {characters:,} of {total:,} characters ({fraction:.2%}), such as {original!r}, read as "
        f"{decoded!r}; bits per character include what it costs to spell them"
    )


def _prepared_folder(config: TextConfig, cache: Path, tokenizer: Tokenizer | None, console: Console) -> Path:
    """The folder with the shards, built if it does not exist."""
    source = open_source(config.data, config, cache)
    separate = {part: open_source(data, config, cache) for part in ("valid", "test") if (data := getattr(config, part))}
    key = _cache_key(config, tokenizer, [source, *separate.values()])
    folder = cache / key
    if folder.is_dir():
        return folder
    make_folder(cache)
    partial = cache / f".{key}.{secrets.token_hex(4)}"
    with writing(partial):
        partial.mkdir()
    try:
        with writing(partial):
            build_corpus(partial, config, source, separate, tokenizer, console)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _cache_key(config: TextConfig, tokenizer: Tokenizer | None, sources: list[Source]) -> str:
    """A name that changes whenever the tokens would."""
    settings = {name: value for name, value in asdict(config).items() if name not in READING_SETTINGS}
    identity: list[Any] = [FORMAT, settings, [source.identity() for source in sources]]
    if tokenizer is not None:
        identity.append(fingerprint(tokenizer))
    elif config.tokenizer_path:
        path = Path(config.tokenizer_path)
        files = sorted(path.glob("*.*")) if path.is_dir() else [path]
        identity.append([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files if p.is_file()])
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
