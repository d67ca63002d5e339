"""Labels of examples: their names in the configuration, their numbers beside the shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from .config import TextConfig
from .documents import open_source, units
from .sources import decoded
from .tables import lines

MOST = 1000


def with_label_names(config: TextConfig, cache: Path) -> TextConfig:
    """The configuration with the labels of its data, in order, unless it names them or has none.

    Raises UserError where there are none, or too many to be labels.
    """
    if not config.label or config.labels:
        return config
    names: set[str] = set()
    for unit in units(open_source(config.data, config, cache), config):
        names.add(unit.label)
        if len(names) > MOST:
            raise UserError(f"label={config.label} has more than {MOST} values: it holds text, not labels.")
    if not names - {""}:
        raise UserError(f"label={config.label} is empty everywhere.")
    return replace(config, labels=tuple(sorted(names - {""})))


def number(config: TextConfig, label: str) -> int:
    """The number of a label, from 1; an empty one, which is none, has 0. Raises UserError for an unknown one."""
    if not label:
        return 0
    if label not in config.labels:
        raise UserError(f"There is no label {label!r}; there are {', '.join(config.labels)}.")
    return config.labels.index(label) + 1


class Numbers:
    """Writes the numbers of a part's labels, one for each example, where there are labels."""

    def __init__(self, folder: Path, part: str, config: TextConfig) -> None:
        self.path, self.config = _path(folder, part), config
        self._numbers: list[int] = []
        self._known: dict[str, int] = {}

    def __enter__(self) -> Numbers:
        return self

    def add(self, label: str) -> None:
        """The next example's. Raises UserError for an unknown one."""
        if label not in self._known:
            self._known[label] = number(self.config, label)
        self._numbers.append(self._known[label])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.config.label and kind is None:
            np.save(self.path, np.array(self._numbers, dtype=np.int64), allow_pickle=False)


def labels_beside(folder: Path, part: str) -> np.ndarray:
    """The numbers that `Numbers` wrote."""
    return np.load(_path(folder, part), allow_pickle=False)


def _path(folder: Path, part: str) -> Path:
    return folder / f"{part}.labels.npy"


COLUMNS = "text", "label"


def read_labelled(path: str | Path) -> list[tuple[str, str]]:
    """Texts with their labels: the fields `text` and `label` of .csv and .jsonl; of other files lines `text TAB
    label`, whose texts have no tabs.

    Raises UserError for a file that cannot be read, a record without one of the two, and fewer than two labels.
    """
    path = Path(path)
    kind = ends if (ends := path.suffix.lower()) in (".csv", ".jsonl") else ".tsv"
    columns = COLUMNS if kind == ".tsv" else None
    try:
        with path.open("rb") as file:
            records = lines(path, kind, decoded(path, file, "utf-8"), ("text", "", "label"), columns)
            found = [(text, label) for text, _, label in records]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    for number, record in enumerate(found, 1):
        if "" in record:
            raise UserError(f"Record {number} of {path} has an empty text or label.")
    if columns and found[:1] == [COLUMNS]:
        found = found[1:]  # a line that names the columns
    labels = {label for _, label in found}
    if len(labels) < 2:
        raise UserError(f"{path} has {len(labels)} labels; a classifier needs at least two.")
    return found
