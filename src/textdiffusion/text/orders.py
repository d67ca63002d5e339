"""Pseudo-random orders without state: a hash and a permutation, both of whole arrays."""

from __future__ import annotations

import numpy as np

_U64 = np.uint64


def hashed(seed: int, *values: np.ndarray | int) -> np.ndarray:
    """uint64 hash of a seed and integers, elementwise: a splitmix64 finaliser after each."""
    state = np.atleast_1d(_U64(seed & 0xFFFFFFFFFFFFFFFF))
    with np.errstate(over="ignore"):
        for value in values:
            state = _mix(state + _U64(0x9E3779B97F4A7C15) + _mix(np.atleast_1d(value).astype(np.uint64)))
    return state


def permuted(index: np.ndarray, count: int, seed: int, key: np.ndarray) -> np.ndarray:
    """Where each `index` of 0..count-1 goes under the permutation chosen by (seed, key); int64.

    A four-round Feistel network on the next even number of bits; values beyond `count` walk on until inside.
    """
    half = _U64(max((int(count - 1).bit_length() + 1) // 2, 1))
    mask = _U64((1 << int(half)) - 1)
    keys = [hashed(seed, key, number) for number in range(1, 5)]
    place = index.astype(np.uint64)
    outside = np.ones(place.shape, dtype=bool)
    while outside.any():
        left, right = place[outside] >> half, place[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key[outside]) & mask)
        place[outside] = (left << half) | right
        outside = place >= _U64(count)
    return place.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))
