"""Labels of examples: their names in the configuration, their numbers beside the shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from textdiffusion.errors import UserError
from textdiffusion.text.config import TextConfig
from textdiffusion.text.corpora import open_source, units

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
