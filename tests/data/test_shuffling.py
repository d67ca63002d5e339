"""The stateless order: a permutation for every key, alike whatever else is asked, and well mixed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.data.shuffling import hash_uint64, permute


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), key=st.integers(0, 10**6))
def test_a_permutation_of_its_own_for_every_key(count, seed, key):
    images = permute(np.arange(count), count, seed, np.full(count, key))
    assert np.array_equal(np.sort(images), np.arange(count))
    some = np.arange(count)[:: max(count // 7, 1)]
    assert np.array_equal(permute(some, count, seed, np.full(len(some), key)), images[some])


def test_permutations_look_drawn():
    count, keys = 50, 4000
    index = np.tile(np.arange(count), keys)
    images = permute(index, count, 0, np.repeat(np.arange(keys), count)).reshape(keys, count)
    assert len({tuple(order) for order in images.tolist()}) == keys
    table = np.array([np.bincount(images[:, i], minlength=count) for i in range(count)])  # index by image
    chi = ((table - keys / count) ** 2 / (keys / count)).sum() / (count - 1) ** 2
    assert 0.9 < chi < 1.1
    follows = (np.diff(images, axis=1) == 1).mean()  # neighbours staying neighbours
    assert abs(follows - 1 / count) < 0.004


def test_large_counts():
    index = np.array([0, 1, 10**12 - 1])
    images = permute(index, 10**12, 5, np.zeros(3, dtype=np.int64))
    assert len(set(images.tolist())) == 3
    assert (images >= 0).all()
    assert (images < 10**12).all()


def test_hash_bits_are_fair():
    bits = np.unpackbits(hash_uint64(7, np.arange(4096), 3).view(np.uint8)).reshape(4096, 64)
    assert abs(bits.mean(0) - 0.5).max() < 0.04
    assert not np.array_equal(hash_uint64(7, 1, 2), hash_uint64(7, 2, 1))
