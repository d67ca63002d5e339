"""Labels of examples: their names in the configuration, their ids beside the shards."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from .compression import file_type, open_decompressed
from .config import TextConfig
from .documents import open_source, read_units
from .encodings import choose_reading, decode_chunks
from .pipes import copy_pipe, is_pipe
from .tables import follows_quotes, read_table

MAX_LABELS = 1000
COLUMNS = "text", "label"
COLUMN_NAMED = ".jsonl", ".ndjson", ".csv"


def with_label_names(config: TextConfig, cache: Path) -> TextConfig:
    """The configuration with the sorted labels of its data, unless it names them or has no label field.

    Raises UserError if no label is found, or more than `MAX_LABELS`.
    """
    if not config.label or config.labels:
        return config
    names: set[str] = set()
    for unit in read_units(open_source(config.data, config, cache), config):
        names.add(unit.label)
        if len(names) > MAX_LABELS:
            raise UserError(f"label={config.label} has more than {MAX_LABELS} values: it holds text, not labels.")
    if not names - {""}:
        raise UserError(f"label={config.label} is empty in every record.")
    return replace(config, labels=tuple(sorted(names - {""})))


def label_id(config: TextConfig, label: str) -> int:
    """The id of a label: 1, 2, ..., and 0 for the empty string (unlabelled). Raises UserError for an unknown label."""
    if not label:
        return 0
    if label not in config.labels:
        raise UserError(f"There is no label {label!r}; the labels are {', '.join(config.labels)}.")
    return config.labels.index(label) + 1


def save_labels(folder: Path, part: str, label_ids: Sequence[int]) -> None:
    """Write the label ids of a part, one per example, beside its shard."""
    np.save(_path(folder, part), np.array(label_ids, dtype=np.int64), allow_pickle=False)


def load_labels(folder: Path, part: str) -> np.ndarray:
    """The label ids that `save_labels` wrote, int64, one per example."""
    return np.load(_path(folder, part), allow_pickle=False)


def label_notes(config: TextConfig, part: str, label_ids: np.ndarray | None) -> list[str]:
    """What the user should know about the labels of a part."""
    if label_ids is None:
        return []
    notes = []
    if unlabelled := int((label_ids == 0).sum()):
        notes.append(f"{part}: {unlabelled} of {len(label_ids)} examples have no label")
    if part == "train" and len(config.labels) == 1:
        notes.append(f"train: {config.label} has a single value, {config.labels[0]}, so it cannot steer anything")
    return notes


def _path(folder: Path, part: str) -> Path:
    return folder / f"{part}.labels.npy"


def read_labelled(path: str | Path) -> list[tuple[str, str]]:
    """Pairs of text and label: fields `text` and `label` of .csv, .jsonl and .json files, else lines `text TAB label`.

    Raises UserError for an unreadable file, an empty text or label, and fewer than two labels.
    """
    if is_pipe(str(path)):
        with tempfile.TemporaryDirectory() as folder:
            return read_labelled(copy_pipe(str(path), Path(folder), records=False))
    path = Path(path)
    kind = file_type(path) if file_type(path) in (*COLUMN_NAMED, ".json") else ".tsv"
    columns = COLUMNS if kind == ".tsv" else None
    try:
        reading = choose_reading(path, lambda: open_decompressed(path), options=False)
        quoted = True
        if kind == ".tsv":
            with open_decompressed(path) as (_, stream):
                quoted = follows_quotes(decode_chunks(stream, reading), columns)
        with open_decompressed(path) as (_, stream):
            chunks = decode_chunks(stream, reading)
            records = read_table(path, kind, chunks, ("text", "", "label"), columns, quoted=quoted)
            pairs = [(text, label) for text, _, label in records]
    except UserError as error:
        raise UserError(f"{error} Write each line as text, tab, label." if columns else str(error)) from None
    for number, pair in enumerate(pairs, 1):
        if "" in pair:
            raise UserError(f"Record {number} of {path} has an empty text or label.")
    if columns and pairs[:1] == [COLUMNS]:
        pairs = pairs[1:]  # a line with the names of the columns
    count = len({label for _, label in pairs})
    if count < 2:
        raise UserError(f"{path} has {count} {'label' if count == 1 else 'labels'}; a classifier needs at least two.")
    return pairs
