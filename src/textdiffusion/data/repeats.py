"""Held-out examples that are also training examples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from .shards import Shard


def count_repeats(train: Shard, held_out: Shard) -> int:
    """How many examples of `held_out` equal an example of `train`, token by token; both use the same tokenizer."""
    counts = Counter(_digests(held_out))  # of the smaller part, since its digests are kept in memory
    return sum(counts[digest] for digest in {digest for digest in _digests(train) if digest in counts})


def _digests(shard: Shard) -> Iterator[bytes]:
    assert shard.starts is not None
    for start, end in pairwise(shard.starts.tolist()):
        yield hashlib.blake2b(shard.tokens[start:end].tobytes(), digest_size=16).digest()
