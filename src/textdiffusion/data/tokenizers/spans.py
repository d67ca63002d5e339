"""Which characters and bytes the tokens of an engine stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer as Engine

from .base import Ids

_REACH = 16  # characters that may be dropped or changed before a piece


def char_counts(offsets: Sequence[tuple[int, int]], length: int) -> Ids:
    """How many of `length` characters each token stands for, from the start and end of each in the text.

    The first of several tokens that overlap, as the bytes of a character do, counts for all of them. Characters without
    a token, such as dropped spaces, count with the next one, at the end of the text with the last.
    """
    counts = np.zeros(len(offsets), dtype=np.int64)
    if not len(counts):
        return counts
    starts, ends = np.array(offsets, dtype=np.int64).T
    ends = np.minimum(np.maximum.accumulate(ends), length)
    first = np.flatnonzero(np.append(True, starts[1:] >= ends[:-1]))
    group_ends = np.append(ends[first[1:] - 1], length)
    counts[first] = np.diff(group_ends, prepend=0)
    return counts


def find_pieces(text: str, pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """The start and end in `text` of pieces of it that may have been changed: spaces added, letters normalised.

    Each piece is looked for in the next characters. Those before it count with it, or with the pieces before it that
    were not found. A character that several pieces make up belongs to all of them.
    """
    spans: list[tuple[int, int]] = []
    position, lost = 0, 0  # `lost` pieces before this one were not found
    number = 0
    while number < len(pieces):
        width = next((w for w in (1, 2, 3, 4) if _is_text(b"".join(pieces[number : number + w]))), 1)
        piece = b"".join(pieces[number : number + width]).decode("utf-8", "replace")
        piece = piece.strip(" ") or piece
        start = text.find(piece, position, position + len(piece) + _REACH) if piece else -1
        if start < 0:
            lost += width
            spans += [(position, position)] * width
        else:
            if lost:
                spans[-lost:] = [(position, start)] * lost
            position, lost = start + len(piece), 0
            spans += [(start, position)] * width
        number += width
    return spans


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def byte_table(engine: Engine, vocab_size: int) -> list[bytes] | None:
    """The bytes of each token of a byte-level vocabulary; None for others."""
    parts = json.loads(engine.to_str())
    pre_tokenizer = parts.get("pre_tokenizer") or {}
    kinds = [pre_tokenizer, *pre_tokenizer.get("pretokenizers", [])]
    if not any(kind.get("type") == "ByteLevel" for kind in kinds) or parts.get("normalizer"):
        return None
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    table = [b""] * vocab_size
    for token, id in engine.get_vocab().items():
        table[id] = bytes(byte_of[c] for c in token if c in byte_of)
    for added in parts.get("added_tokens", []):  # these stand for their own text, not for bytes
        table[added["id"]] = added["content"].encode()
    return table
