"""From a configuration to shards on disk, once; later runs with the same source and tokenizer reuse them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..core.errors import UserError
from ..core.files import writing
from ..core.hashing import json_hash
from ..core.scratch import scratch_folder
from ..core.terminal import TextConsole
from .build import FORMAT, build_corpus
from .checksums import DamagedFolder, verify_checksums
from .choices import choose
from .config import TextConfig
from .dataset import Dataset
from .documents import chat_template, open_source
from .examples import Examples
from .known_texts import KnownText, content_hash
from .labels import label_notes, load_labels
from .paths import MissingText
from .prompt_lengths import load_prompt_lengths
from .shards import open_shard
from .sources import Files, Source
from .stream import Stream
from .tokenizers.base import Tokenizer, fingerprint
from .tokenizers.loading import load

# Settings that apply when batches are read, so that the shards do not depend on them.
READING_SETTINGS = {"length", "packing", "model_padding", "too_long", "mask", "condition_dropout", "subword_sampling"}
NOT_IN_KEY = READING_SETTINGS | {"data", "valid", "test", "tokenizer_path", "chat_template"}
# Of the paths among them, the content is in the key.


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
            reason = f"{name}_fraction is 0" if not getattr(self.config, f"{name}_fraction") else "it is too short"
            raise UserError(f"{self.config.data} has no {name} part: {reason}.")
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
    `trainable` adds a note if the training text is shorter than a window. Progress is shown on `console` (None:
    standard error). Several processes may call this at the same time. Prepared text that was damaged is made again, if
    the text is still there. Raises UserError for text that cannot be used; no partial files remain.
    """
    config, _ = choose(config, Path(cache))
    cache, console = Path(cache), console or TextConsole(stderr=True)
    try:
        folder = _prepared_folder(config, cache, tokenizer, console)
        tokenizer = load(folder / "tokenizer.json")
        description = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename or cache})"
        raise UserError(
            f"The folder of prepared text cannot be used: {reason}. TEXTDIFFUSION_CACHE names another one."
        ) from None
    repeats, lost = description.get("repeated", {}), description.get("lost", {})
    datasets: dict[str, Dataset] = {}
    notes: list[str] = list(description["notes"])
    for part in description["parts"]:
        shard = open_shard(folder / f"{part}.tokens")
        name = f"the {part} part of {config.data}"
        if config.layout == "stream":
            dataset: Dataset = Stream(shard, config, tokenizer, seed=seed, name=name)
            if part == "train" and trainable and len(shard) < config.length:
                notes.append(
                    f"train: {len(shard)} tokens are fewer than a window of {config.length}, so the window is padded; "
                    f"text.length={max(len(shard), 2)} would fit"
                )
        else:
            labels = load_labels(folder, part) if config.label else None
            prompt_lengths = load_prompt_lengths(folder, part) if config.has_prompts else None
            dataset = Examples(
                shard, config, tokenizer, seed=seed, name=name, labels=labels, prompt_lengths=prompt_lengths
            )
            notes += label_notes(config, part, labels)
        datasets[part] = dataset
        notes += [f"{part}: {note}" for note in dataset.notes]
        if loss := lost.get(part):
            notes.append(f"{part}: {_loss_note(**loss, total=shard.header.chars)}")
        if count := repeats.get(part):
            notes.append(f"{part}: {count} of {shard.header.examples} examples are also in the training part")
    train = datasets["train"]
    return Corpus(config, tokenizer, train, datasets.get("valid"), datasets.get("test"), folder, tuple(notes))


def _loss_note(characters: int, example: list[str], total: int) -> str:
    original, decoded = ((text if len(text) <= 20 else text[:20] + "...") for text in example)
    fraction = characters / max(total, characters)
    return (
        f"the tokenizer loses {characters:,} of {total:,} characters ({fraction:.2%}), such as {original!r}, read as "
        f"{decoded!r}; bits per character include what it costs to spell them"
    )


def _prepared_folder(config: TextConfig, cache: Path, tokenizer: Tokenizer | None, console: Console) -> Path:
    """The folder with the shards, built if it does not exist or is damaged."""
    names = {"train": config.data} | {part: name for part in ("valid", "test") if (name := getattr(config, part))}
    known = {part: KnownText(cache, name, config) for part, name in names.items()}
    try:
        sources = {part: open_source(name, config, cache) for part, name in names.items()}
        identities = {part: _identity(sources[part], known[part]) for part in names}
    except MissingText:
        # Text that was prepared once is not needed again.
        identities = {part: each.identity for part, each in known.items()}
        folder = cache / _cache_key(config, tokenizer, identities)
        if None in identities.values() or not folder.is_dir():
            raise
        verify_checksums(folder)
        return folder
    folder = cache / _cache_key(config, tokenizer, identities)
    is_damaged = False
    if folder.is_dir():
        try:
            verify_checksums(folder)
        except DamagedFolder as error:
            console.print(f"{error} It is prepared again now.", highlight=False, markup=False, soft_wrap=True)
            is_damaged = True
    if is_damaged or not folder.is_dir():
        separate = {part: source for part, source in sources.items() if part != "train"}
        with scratch_folder(cache, folder.name) as scratch:
            partial = scratch / "new"
            with writing(folder):
                partial.mkdir()
                build_corpus(partial, config, sources["train"], separate, tokenizer, console)
            if is_damaged:
                folder.rename(scratch / "damaged")
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first, with the same content
                    raise
    for part, source in sources.items():
        if isinstance(source, Files):
            known[part].store(identities[part], source.paths)
    return folder


def _identity(source: Source, known: KnownText) -> list[Any]:
    known.load_hashes()
    return source.identity()


def _cache_key(config: TextConfig, tokenizer: Tokenizer | None, identities: Mapping[str, Any]) -> str:
    """A name that changes whenever the tokens would. Where text and tokenizer lie makes no difference."""
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_IN_KEY}
    identity: list[Any] = [FORMAT, settings, dict(identities)]
    if (template := chat_template(config)) is not None:
        identity.append([template.source, dict(template.names)])
    if tokenizer is not None:
        identity.append(fingerprint(tokenizer))
    elif config.tokenizer_path:
        path = Path(config.tokenizer_path)
        files = sorted(path.glob("*.*")) if path.is_dir() else [path]
        identity.append([[p.name, content_hash(p)] for p in files if p.is_file()])
    return json_hash(identity)
