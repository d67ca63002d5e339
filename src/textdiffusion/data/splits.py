"""Where the data are split into training, validation and test."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..core.errors import UserError
from .config import TextConfig
from .documents import unit_size
from .sources import Chunk


@dataclass(frozen=True)
class SplitBounds:
    """Training is [0, train), validation [train, valid), test [valid, total): characters of a stream, else examples."""

    train: int
    valid: int
    total: int

    def spans(self) -> dict[str, tuple[int, int]]:
        """Start and end of each part."""
        return {"train": (0, self.train), "valid": (self.train, self.valid), "test": (self.valid, self.total)}


class SplitCounter:
    """Counts the characters or examples of a source, and then places the bounds between the parts."""

    def __init__(self, config: TextConfig) -> None:
        self.config, self.total = config, 0
        self._starts, self._last = array("q"), -1  # of the documents or files, if the split respects them

    def add(self, unit: Chunk) -> None:
        """Count the next unit."""
        number = {"cut": -1, "documents": unit.document, "files": unit.file}[self.config.split_between]
        if number != self._last:
            self._starts.append(self.total)
            self._last = number
        self.total += unit_size(unit, self.config)

    def bounds(self, name: str) -> SplitBounds:
        """The bounds for the configured fractions; parts of too little text are empty.

        Raises UserError if the data are to be split between documents or files and there are too few.
        """
        # A part with data of its own takes nothing from these.
        valid = 0.0 if self.config.valid else self.config.valid_fraction
        test = 0.0 if self.config.test else self.config.test_fraction
        if self.config.split_between == "cut":
            return self._cut(valid, test)
        parts = 1 + (valid > 0) + (test > 0)
        if (count := len(self._starts)) < parts:
            raise UserError(
                f"{name} has too few {self.config.split_between} ({count}) for {parts} parts. "
                "Use text.split=cut, or set text.valid_fraction=0 or text.test_fraction=0."
            )
        num_test = max(1, round(count * test)) if test else 0
        num_valid = max(1, round(count * valid)) if valid else 0
        num_train = max(count - num_test - num_valid, 1)
        starts = [*self._starts, self.total]
        return SplitBounds(starts[num_train], starts[max(num_train + (valid > 0), count - num_test)], self.total)

    def _cut(self, valid: float, test: float) -> SplitBounds:
        """Bounds anywhere. Of too little text for both parts nothing is held out for the test, or nothing at all."""
        total = self.total
        # Rounded, since 1 - 0.05 - 0.05 is a little below 0.9 and would move the bound by one.
        train_end, valid_end = (int(total * round(fraction, 9)) for fraction in (1 - valid - test, 1 - test))
        if train_end and (train_end < valid_end or not valid) and (valid_end < total or not test):
            return SplitBounds(train_end, valid_end, total)
        train_end = max(min(train_end, total - 1), 1)
        return SplitBounds(train_end, total if valid else train_end, total)


def split_units(units: Iterator[Chunk], bounds: SplitBounds, config: TextConfig) -> Iterator[tuple[str, Chunk]]:
    """Every unit with its part; a unit of a stream is cut at the end of a part."""
    position = 0
    rest: Chunk | None = None
    for part, (_, end) in bounds.spans().items():
        while position < end:
            unit, rest = _cut(rest or next(units), end - position, config)
            yield part, unit
            position += unit_size(unit, config)


def _cut(unit: Chunk, position: int, config: TextConfig) -> tuple[Chunk, Chunk | None]:
    """A unit of a stream cut at a character, or for tokenizer=words after the word there; None if nothing remains."""
    text = unit.text
    if config.layout != "stream" or position >= len(text):
        return unit, None
    if config.tokenizer == "words":
        space = re.compile(r"\s").search(text, position)
        if space is None:
            return unit, None
        position = space.start()
    return replace(unit, text=text[:position]), replace(unit, text=text[position:])
