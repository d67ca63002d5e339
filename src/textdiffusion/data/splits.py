"""Where training ends and validation and test begin."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from ..core.errors import UserError
from .config import TextConfig
from .documents import Unit


@dataclass(frozen=True)
class SplitBounds:
    """Training is [0, train), validation [train, valid), test [valid, total): characters of a stream, else examples."""

    train: int
    valid: int
    total: int

    def spans(self) -> dict[str, tuple[int, int]]:
        return {"train": (0, self.train), "valid": (self.train, self.valid), "test": (self.valid, self.total)}


class SplitCounter:
    """Counts what a source holds and finds the cuts."""

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self.total = 0
        self._starts = array("q")  # of every document or file, as far as cuts are bound to them
        self._last = -1

    def add(self, unit: Unit) -> None:
        bound = {"cut": -1, "documents": unit.document, "files": unit.file}[self.config.split]
        if bound != self._last:
            self._starts.append(self.total)
            self._last = bound
        self.total += len(unit.text) if self.config.layout == "stream" else 1

    def cuts(self, name: str) -> SplitBounds:
        """The cuts for the configured fractions. Raises UserError where there are too few documents or files."""
        # Validation or test text of its own leaves nothing of that kind to cut off here.
        valid = 0.0 if self.config.valid else self.config.valid_fraction
        test = 0.0 if self.config.test else self.config.test_fraction
        if self.config.split == "cut":
            return SplitBounds(*_ends(self.total, valid, test), self.total)
        parts = 1 + (valid > 0) + (test > 0)
        if (count := len(self._starts)) < parts:
            raise UserError(
                f"{name} has too few {self.config.split} ({count}) for {parts} parts: "
                "use text.split=cut, or set text.valid_fraction=0 or text.test_fraction=0."
            )
        tests = max(1, round(count * test)) if test else 0
        valids = max(1, round(count * valid)) if valid else 0
        last = max(count - tests - valids, 1)
        starts = [*self._starts, self.total]
        return SplitBounds(starts[last], starts[max(last + (valids > 0), count - tests)], self.total)


def _ends(total: int, valid: float, test: float) -> tuple[int, int]:
    # Rounded, since 1 - 0.05 - 0.05 is a little below 0.9 and would move the cut by one.
    return int(total * round(1 - valid - test, 9)), int(total * round(1 - test, 9))
