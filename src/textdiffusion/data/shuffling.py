"""Stateless pseudo-random order: a hash and a permutation, both computed elementwise on arrays."""

from __future__ import annotations

from math import isqrt

import numpy as np

_U64 = np.uint64
_MAX = 0xFFFFFFFFFFFFFFFF
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, the increment of splitmix64
_ROUNDS = 8  # with 4, neighbours stay neighbours half as often again as they should


def hash_uint64(seed: int, *values: np.ndarray | int) -> np.ndarray:
    """uint64 hash of a seed and integers, elementwise: one splitmix64 finalizer per integer."""
    state = np.array([seed & _MAX], dtype=np.uint64)
    for value in values:
        state = _mix(state + _U64(_GOLDEN) + _mix(np.atleast_1d(value).astype(np.uint64)))
    return state


def permute(index: np.ndarray, count: int, seed: int, key: np.ndarray) -> np.ndarray:
    """The images, int64, of each `index` in 0..count-1 under the permutation chosen by (seed, key).

    A Feistel network on a square of `side` x `side` >= count numbers: each round shifts one coordinate by a hash of the
    other. Numbers mapped beyond `count` are mapped again until they are inside (cycle walking).
    """
    side = _U64(isqrt(max(count - 1, 0)) + 1)
    keys = hash_uint64(seed, key)
    image = index.astype(np.uint64)
    outside = np.ones(image.shape, dtype=bool)
    while outside.any():
        high, low = np.divmod(image[outside], side)
        for number in range(_ROUNDS):
            shift = _mix(low + keys[outside] + _U64(number * _GOLDEN & _MAX))
            high, low = low, (high + shift % side) % side
        image[outside] = high * side + low
        outside = image >= _U64(count)
    return image.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))
