"""What generated data sets share: the numbers after their name, and documents of a thousand lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

DEFAULT_SIZE = 50_000  # lines
MAX_SIZE = 10**8  # lines: about 10 GB of text
MAX_DIGITS = 19  # of a seed
DOCUMENT = 1000  # lines


def parse_size_and_seed(numbers: Sequence[str]) -> tuple[int, int] | None:
    """From [], [SIZE] or [SIZE, SEED] (by default 50,000 lines and seed 0); None if they are not valid."""
    if len(numbers) > 2 or not all(n.isascii() and n.isdigit() and len(n) <= MAX_DIGITS for n in numbers):
        return None
    if numbers[:1] and not 1 <= int(numbers[0]) <= MAX_SIZE:
        return None
    size, seed = [*map(int, numbers), *(DEFAULT_SIZE, 0)[len(numbers) :]]
    return size, seed


def to_documents(lines: Iterator[str]) -> Iterator[str]:
    """The lines, joined into documents of `DOCUMENT` lines."""
    while document := "".join(f"{line}\n" for line in islice(lines, DOCUMENT)):
        yield document
