"""Real text: the held-out windows a run is measured on, and the text it was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from ..core.batch import Batch
from ..core.errors import UserError
from ..data.compression import file_type
from ..data.config import TextConfig
from ..data.dataset import Dataset, Rows
from ..data.documents import names_files, same_text, with_copied_pipe
from ..data.paths import MissingText, find_files
from ..data.prepare import Corpus, prepare
from ..data.tables import TABLE_SUFFIXES
from ..data.tokenizers.base import Tokenizer, fingerprint
from ..inference.api import TextDiffusion
from ..scoring.protocol import COUNTED, Fact, sha256
from ..storage.packaged import excerpt_of

MAX_REFERENCE_TOKENS = 5_000_000  # of the text that samples are compared with


@dataclass(frozen=True)
class HeldOut:
    """Windows of a text: those of `dataset` with the numbers `rows`, evenly spaced.

    `name` is for people, `metadata` for the protocol. `trained_on`: the run was trained on this text.
    """

    dataset: Dataset
    rows: Integer[np.ndarray, " n"]
    name: str
    metadata: dict[str, Fact]
    trained_on: bool

    def __len__(self) -> int:
        return len(self.rows)

    def windows(self, rows: Rows) -> Batch:
        """The windows with these numbers, counted among the chosen windows."""
        return self.dataset.windows(self.rows[np.asarray(rows)])

    def positions(self) -> Integer[np.ndarray, " tokens"]:
        """Indices of these windows' tokens in the shard, without padding."""
        return self.dataset.positions(self.rows)

    def characters(self) -> int:
        """Number of characters in these windows."""
        chars = self.dataset.windows(self.rows).num_chars
        assert chars is not None
        return int(chars.sum())

    def lost_bits(self) -> float:
        """Bits of the characters in these windows that the tokenizer lost."""
        bits = self.dataset.windows(self.rows).lost_bits
        return 0.0 if bits is None else float(bits.double().sum())


class RealText(NamedTuple):
    """Training and held-out text: both running text, or both lists of examples."""

    train: str | list[str]
    heldout: str | list[str]


def held_out(model: TextDiffusion, cache_dir: Path, data: str = "", count: int = 0) -> HeldOut:
    """`data` as windows of the run's length; without `data`, the run's own test text, or else its validation text.

    Where the text of a model of the package is not available, the excerpt that comes with the model takes its place.
    `count` is the number of windows (0: all). Raises UserError for text that cannot be used.
    """
    text = _with_own_template(model)
    corpus, excerpt = None, ""
    if not data:
        try:
            corpus = training_corpus(model, cache_dir)
        except UserError:
            if not (excerpt := excerpt_of(model.folder)):
                raise
    if corpus is None:
        data = with_copied_pipe(data, text, cache_dir)
        config = _config_of_all(text, data or excerpt)
        dataset = prepare(config, cache_dir, tokenizer=model.tokenizer, trainable=False).train
        name = data or "the excerpt that comes with the model"
        trained_on = bool(data) and same_text(data, text.data, text, cache_dir)
    else:
        dataset, part = (corpus.test, "test") if corpus.test else (corpus.valid, "validation")
        if dataset is None:
            raise UserError("This run has no test or validation text; name a text with --data.")
        name, trained_on = f"the {part} part of {text.data}", False
    metadata: dict[str, Fact] = {"text": name, "normaliser": text.normaliser, "tokenizer": model.tokenizer.kind}
    metadata |= {"layout": text.layout, "window": text.length, "stride": text.length}
    metadata |= {"counted": COUNTED[text.layout], "weights": model.weights}
    if conditions := [
        *["question"] * (text.mask == "question"),
        *filter(None, (text.source, text.messages, text.label)),
    ]:
        metadata["conditions"] = " and ".join(conditions)
    num_windows = min(count or len(dataset), len(dataset))
    rows = np.linspace(0, len(dataset) - 1, num_windows).round().astype(np.int64)
    tokens = np.asarray(dataset.shard.tokens)[dataset.positions(rows)]
    # The hash of the decoded text: the same text has other ids in another vocabulary.
    metadata["sha256"] = sha256("\n".join(decode_texts(tokens, model.tokenizer)))
    if text.has_prompts or text.label:
        batch, given = dataset.windows(rows), []
        if batch.condition_mask is not None:
            given = np.where(batch.condition_mask.numpy(), batch.tokens.numpy(), -1).tolist()
        metadata["conditions_sha256"] = sha256(
            json.dumps([given, [] if batch.labels is None else batch.labels.tolist()])
        )
    if model.tokenizer.unk_id is not None:
        # A run that reads much of the text as one token looks better than it is.
        metadata["unknown"] = float((tokens == model.tokenizer.unk_id).mean())
    return HeldOut(dataset, rows, name, metadata, trained_on)


def reference_texts(model: TextDiffusion, heldout: HeldOut, cache_dir: Path) -> RealText:
    """The run's training text and the held-out text, to compare samples with.

    Raises UserError where the training text is not available.
    """
    shards = training_corpus(model, cache_dir).train.shard, heldout.dataset.shard
    train, real = (decode_texts(shard.tokens[:MAX_REFERENCE_TOKENS], model.tokenizer) for shard in shards)
    if model.config.text.layout == "stream":
        return RealText("\n".join(train), "\n".join(real))
    return RealText(train, real)


def decode_texts(tokens: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """The texts in a row of tokens, which end tokens separate."""
    tokens = np.asarray(tokens)
    ends = np.flatnonzero(tokens == tokenizer.end_id) + 1 if tokenizer.end_id is not None else []
    return [tokenizer.decode(part) for part in np.split(tokens, ends)]


def training_corpus(model: TextDiffusion, cache_dir: Path) -> Corpus:
    """The run's text in the run's tokens. Raises UserError where the text is not available.

    A run may come from elsewhere, and its config.json name a file that is private here. So files are used only where
    their text has the hash that the run recorded in training.
    """
    text = _with_own_template(model)
    parts = {part: path for part in ("data", "valid", "test") if (path := getattr(text, part)) and names_files(path)}
    for part, path in parts.items():
        if ("train" if part == "data" else part) not in model.text_sha256:
            raise UserError(
                f"The run was trained on {path}, but it does not record its text, so the file of that name here may be "
                "another. Name the text to measure on with --data."
            )
    try:
        corpus = prepare(text, cache_dir)
        if fingerprint(corpus.tokenizer) != fingerprint(model.tokenizer):  # it was not learned from the run's own text
            corpus = prepare(text, cache_dir, tokenizer=model.tokenizer)
    except MissingText as error:
        raise UserError(f"The text of this run is missing: {error} If it was moved, name it with --data.") from None
    if parts and any(model.text_sha256.get(part, sha) != sha for part, sha in corpus.hashes.items()):
        raise UserError(
            f"The text in {' and '.join(parts.values())} is not the one that the run was trained on: it was changed, "
            "or is another of the same name. Restore it, or name the text to measure on with --data."
        )
    return corpus


def _with_own_template(model: TextDiffusion) -> TextConfig:
    """The run's text settings, with the chat template of its folder: the file that it came from may be gone."""
    text = model.config.text
    return replace(text, chat_template=str(model.folder)) if text.is_chat and model.folder else text


def _config_of_all(text: TextConfig, data: str) -> TextConfig:
    """The run's text settings for another source, which is read completely (the run's own: up to its limit)."""
    try:
        suffixes = {file_type(path) for path in find_files(data)}
    except UserError:  # built in, of the hub, or missing, which `prepare` reports
        suffixes = set()
    hub = data.startswith("hf:")
    return replace(
        text,
        data=data,
        valid="",
        test="",
        valid_fraction=0.0,
        test_fraction=0.0,
        split="cut",
        limit=text.limit if data == text.data else 0,
        field=text.field if hub or suffixes & {*TABLE_SUFFIXES, ".json"} else "",
        encoding=text.encoding if suffixes else "utf-8",
        hub_config=text.hub_config if hub else "",
        hub_split=text.hub_split if hub else "train",
    )
