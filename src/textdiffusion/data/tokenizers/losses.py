"""What a tokenizer loses of a text, and what it costs to say it.

Some tokens do not decode to the characters they stand for: [UNK], a character that stands in, a word in lower case.
The bits of the tokens alone do not determine the text then. An explicit code completes them, and its length is added to
their bits: after each such group of tokens come the lost characters in UTF-8, 8 bits per byte, and a byte that ends
them. After [UNK] they are expected. After other tokens `SIGNAL_BITS` announce them. That nothing follows the remaining
tokens costs -log2(1 - 2^-SIGNAL_BITS) = 0.0000001 bits each, less than float32 resolves, which is not counted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .base import Ids, Tokenizer

SIGNAL_BITS = 24.0
BITS_PER_BYTE = 8.0


class Loss(NamedTuple):
    """The bits that each token costs in addition (float32 [n]), the number of lost characters, and an example.

    The example is a lost piece of text and what it is decoded to.
    """

    bits: np.ndarray
    characters: int
    example: tuple[str, str]


class ChargedTokens(NamedTuple):
    """The tokens of a text (int64 [n]), the characters of each (None: one each), and what is lost of the text."""

    ids: Ids
    char_counts: Ids | None
    loss: Loss | None


def encode_charged(tokenizer: Tokenizer, text: str) -> ChargedTokens:
    """The tokens of a text and what they lose of it. A text that is not empty has at least one token."""
    ids, char_counts = tokenizer.encode_counted(text)
    if text and not len(ids):
        ids, char_counts = np.array([tokenizer.unk_id or 0]), np.array([len(text)])
    return ChargedTokens(ids, char_counts, measure_loss(tokenizer, text, ids, char_counts))


def measure_loss(tokenizer: Tokenizer, text: str, ids: Ids, char_counts: Ids | None) -> Loss | None:
    """What is lost of `text`, of which these are the tokens and their numbers of characters; None: nothing."""
    unk_id = tokenizer.unk_id
    if (unk_id is None or unk_id not in ids) and tokenizer.decode(ids) == text:
        return None
    starts, ends = _groups(np.ones_like(ids) if char_counts is None else char_counts)
    spans = np.cumsum(np.ones_like(ids) if char_counts is None else char_counts)
    added = lru_cache(maxsize=1 << 16)(tokenizer.added_text)  # pairs of tokens repeat
    bits = np.zeros(len(ids), dtype=np.float32)
    characters, example, position = 0, None, 0
    tokens = ids.tolist()
    for start, end, stop in zip(starts.tolist(), ends.tolist(), spans[ends - 1].tolist(), strict=True):
        original, position = text[position:stop], stop
        group = tuple(tokens[start:end])
        decoded = added((tokens[start - 1],) if start else (), group)
        is_unknown = unk_id is not None and unk_id in group
        if decoded == original and not is_unknown:
            continue
        bits[start] = spelling_bits(original) + (0.0 if group == (unk_id,) else SIGNAL_BITS)
        characters += len(original)
        example = example or (original, decoded)
    # Where every group is right but not their concatenation, decoding depends on more than the token before.
    return None if example is None else Loss(bits, characters, example)


def spelling_bits(text: str) -> float:
    """The length of the code of lost characters: the bytes of their UTF-8 and one that ends them."""
    return BITS_PER_BYTE * (len(text.encode("utf-8", "surrogatepass")) + 1)


def _groups(char_counts: Ids) -> tuple[Ids, Ids]:
    """Where the groups of tokens that stand for whole characters start and end."""
    starts = np.flatnonzero(char_counts > 0)
    starts = np.unique(np.append(0, starts))
    return starts, np.append(starts[1:], len(char_counts))
