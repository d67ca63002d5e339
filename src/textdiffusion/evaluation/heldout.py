"""The text a run is measured on, and the text it learned from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.batch import Batch
from ..core.errors import UserError
from ..data.config import TextConfig
from ..data.dataset import Dataset, Rows
from ..data.prepare import Corpus, prepare
from ..data.sources import TABLE_SUFFIXES, file_type, find_files
from ..data.tokenizers.base import Tokenizer, fingerprint
from ..inference.api import TextDiffusion
from ..scoring.protocol import COUNTED, Fact, sha256


@dataclass(frozen=True)
class HeldOut:
    """Some windows of a text, those called `numbers`, evenly spread.

    `name` is for people, `about` for the protocol; `seen`: the run was trained on this text.
    """

    dataset: Dataset
    numbers: np.ndarray
    name: str
    about: dict[str, Fact]
    seen: bool

    def __len__(self) -> int:
        return len(self.numbers)

    def windows(self, rows: Rows) -> Batch:
        """The windows at these places among the chosen."""
        return self.dataset.windows(self.numbers[np.asarray(rows)])

    def positions(self) -> np.ndarray:
        """Where in the shard the tokens of these windows are; padding has no place."""
        return self.dataset.positions(self.numbers)

    def characters(self) -> int:
        """Characters in these windows."""
        chars = self.dataset.windows(self.numbers).num_chars
        assert chars is not None
        return int(chars.sum())


def held_out(model: TextDiffusion, cache: Path, data: str = "", count: int = 0) -> HeldOut:
    """`data` as windows of the run's length, or where it is empty the run's own test part (else its validation part).

    `count` is the number of windows (0: all).

    Raises UserError for text that cannot be used.
    """
    text = model.config.text
    if data:
        dataset = prepare(_whole(text, data), cache, tokenizer=model.tokenizer, trainable=False).train
        name, seen = data, Path(data).exists() and Path(text.data).exists() and Path(data).samefile(text.data)
    else:
        corpus = training_corpus(model, cache)
        dataset, part = (corpus.test, "test") if corpus.test else (corpus.valid, "validation")
        if dataset is None:
            raise UserError("This run kept no test or validation text back; name a text with --data.")
        name, seen = f"the {part} part of {text.data}", False
    about: dict[str, Fact] = {
        "text": name,
        "normaliser": text.normaliser,
        "tokenizer": model.tokenizer.kind,
        "layout": text.layout,
        "window": text.length,
        "stride": text.length,
        "counted": COUNTED[text.layout],
        "weights": model.weights,
    }
    if told := [*["question"] * (text.mask == "question"), *filter(None, (text.source, text.label))]:
        about["given"] = " and ".join(told)
    number = min(count or len(dataset), len(dataset))
    numbers = np.linspace(0, len(dataset) - 1, number).round().astype(np.int64)
    tokens = np.asarray(dataset.shard.tokens)[dataset.positions(numbers)]
    # Of what the tokens say: the same text has other ids in another vocabulary.
    about["sha256"] = sha256("\n".join(texts_in(tokens, model.tokenizer)))
    if text.source or text.label:
        shown = dataset.windows(numbers)
        given = (
            []
            if shown.condition_mask is None
            else np.where(shown.condition_mask.numpy(), shown.tokens.numpy(), -1).tolist()
        )
        about["told"] = sha256(json.dumps([given, [] if shown.labels is None else shown.labels.tolist()]))
    if model.tokenizer.unk_id is not None:
        # Runs that read much text as one token look better than they are.
        about["unknown"] = float((tokens == model.tokenizer.unk_id).mean())
    return HeldOut(dataset, numbers, name, about, seen)


def texts_in(tokens: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """What tokens say, text by text."""
    tokens = np.asarray(tokens)
    ends = np.flatnonzero(tokens == tokenizer.end_id) + 1 if tokenizer.end_id is not None else []
    return [tokenizer.decode(part) for part in np.split(tokens, ends)]


def training_corpus(model: TextDiffusion, cache: Path) -> Corpus:
    """The run's text in the run's tokens. Raises UserError where it is not at hand."""
    corpus = prepare(model.config.text, cache)
    if fingerprint(corpus.tokenizer) == fingerprint(model.tokenizer):
        return corpus
    return prepare(model.config.text, cache, tokenizer=model.tokenizer)  # one that the run did not learn itself


def _whole(text: TextConfig, data: str) -> TextConfig:
    """All of another source, read as the run reads its own; of its own as much as it reads."""
    try:
        kinds = {file_type(path) for path in find_files(data)}
    except UserError:  # built in, of the hub, or missing, which `prepare` says
        kinds = set()
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
        field=text.field if hub or kinds & {*TABLE_SUFFIXES} else "",
        encoding=text.encoding if kinds else "utf-8",
        hub_config=text.hub_config if hub else "",
        hub_split=text.hub_split if hub else "train",
    )
