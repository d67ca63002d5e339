"""Pseudo-random orders without state: a hash and a permutation, both of whole arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isqrt
from typing import Protocol, runtime_checkable

import numpy as np

from ..core.batch import Batch
from .shards import Shard

_U64 = np.uint64


_ALL = 0xFFFFFFFFFFFFFFFF


_ROUNDS = 8  # with 4, neighbours stay neighbours half as often again as they should


def hashed(seed: int, *values: np.ndarray | int) -> np.ndarray:
    """uint64 hash of a seed and integers, elementwise: a splitmix64 finaliser after each."""
    state = np.array([seed & _ALL], dtype=np.uint64)
    for value in values:
        state = _mix(state + _U64(0x9E3779B97F4A7C15) + _mix(np.atleast_1d(value).astype(np.uint64)))
    return state


def permuted(index: np.ndarray, count: int, seed: int, key: np.ndarray) -> np.ndarray:
    """Where each `index` of 0..count-1 goes under the permutation chosen by (seed, key); int64.

    A Feistel network on a square of `side` x `side` >= count numbers: each round shifts one coordinate by a hash of the
    other. The few numbers that land beyond `count` go round again until they are inside.
    """
    side = _U64(isqrt(max(count - 1, 0)) + 1)
    keys = hashed(seed, key)
    place = index.astype(np.uint64)
    outside = np.ones(place.shape, dtype=bool)
    while outside.any():
        one, other = np.divmod(place[outside], side)
        for number in range(_ROUNDS):
            shift = _mix(other + keys[outside] + _U64(number * 0x9E3779B97F4A7C15 & _ALL))
            one, other = other, (one + shift % side) % side
        place[outside] = one * side + other
        outside = place >= _U64(count)
    return place.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


Resegment = Callable[[np.ndarray, int], np.ndarray]
"""Another segmentation of the text of some ids, drawn with an integer seed."""


Rows = range | Sequence[int] | np.ndarray


@runtime_checkable
class Dataset(Protocol):
    """Windows of `length` tokens of one part of a corpus."""

    shard: Shard
    length: int
    notes: tuple[str, ...]
    """What a user should know, such as how many examples were cut short."""

    def __len__(self) -> int:
        """Evaluation windows."""
        ...

    def batch(self, step: int, rows: Rows, *, batch_size: int) -> Batch:
        """Training rows `rows` (of 0..batch_size-1) of the global batch of `step`, by (seed, step, row) alone.

        Each epoch sees every window once, in an order of its own.
        """
        ...

    def windows(self, rows: Rows) -> Batch:
        """The evaluation windows of these numbers, with the characters of each."""
        ...

    def positions(self, rows: Rows) -> np.ndarray:
        """Where in the shard the tokens of these evaluation windows are, in order; padding has no place."""
        ...

    def check_trainable(self) -> None:
        """Raises UserError where not one training window can be had."""
        ...


def evaluation_batches(dataset: Dataset, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """All windows in order, or those numbered `rows` (a rank's share); the last batch may be smaller."""
    numbers = np.arange(len(dataset)) if rows is None else np.asarray(rows)
    for start in range(0, len(numbers), batch_size):
        yield dataset.windows(numbers[start : start + batch_size])
