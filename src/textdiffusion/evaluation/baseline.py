"""The n-gram beside a run: Kneser-Ney of the same training text, over the same tokens, on the same text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..text.shards import Shard
from .heldout import HeldOut
from .ngram import NGram

MOST = 20_000_000  # tokens of the training text that are counted
SMALL, LONG, SHORT = 512, 7, 4  # vocabularies up to this size get the long order, larger ones the short


@dataclass(frozen=True)
class Baseline:
    """Bits per character of a modified Kneser-Ney n-gram, which also sees what stands before a window."""

    bits: float
    order: int
    counted: int
    """Tokens it was trained on."""


def kneser_ney(train: Shard, text: HeldOut, vocab_size: int) -> Baseline:
    """The n-gram of (the first 20 million tokens of) `train`, measured on the tokens in the windows of `text`."""
    counted = np.asarray(train.tokens[:MOST])
    order = min(LONG if vocab_size <= SMALL else SHORT, len(counted))
    bits = NGram.fit(counted, vocab_size, order).bits(np.asarray(text.dataset.shard.tokens))
    return Baseline(float(bits[text.positions()].sum()) / text.characters(), order, len(counted))
