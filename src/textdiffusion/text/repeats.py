"""Held-out examples that are training examples too: there, text learned by heart passes for text understood."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from textdiffusion.text.shards import Shard


def repeated(train: Shard, held_out: Shard) -> int:
    """How many examples of `held_out` are examples of `train`, token by token; both have the same tokenizer."""
    counts = Counter(_digests(held_out))  # of the smaller part, so that its digests are all the memory there is
    return sum(counts[digest] for digest in {digest for digest in _digests(train) if digest in counts})


def _digests(shard: Shard) -> Iterator[bytes]:
    assert shard.starts is not None
    for start, end in pairwise(shard.starts.tolist()):
        yield hashlib.blake2b(shard.tokens[start:end].tobytes(), digest_size=16).digest()
