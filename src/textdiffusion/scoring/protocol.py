"""The protocol of a measurement: what was measured and how, so that only comparable figures share a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise

from ..core.errors import UserError

Fact = str | int | float | bool

MAY_DIFFER = frozenset({"text", "seed", "draws", "likelihood"})
"""Facts that comparable figures may differ in: the text's name (its hash counts), how a bound was estimated."""

COUNTED = {
    "stream": "characters",
    "lines": "characters and line breaks",
    "documents": "characters; ends of documents are modelled but not counted",
}
"""What counts as characters, by the layout of a text."""

NAMES = {
    "sha256": "the text (its hash)",
    "characters": "the number of characters counted",
    "counted": "what is counted",
    "conditions": "the kind of conditions",
    "conditions_sha256": "the conditions (their hash)",
    "tokenizer": "the kind of token",
    "window": "the window in tokens",
    "windows": "the number of windows",
    "stride": "the stride in tokens",
    "weights": "the kind of weights",
    "dtype": "the precision",
    "unknown": "the fraction of unknown tokens",
    "training": "the training text (its hash)",
    "calibration": "the number of temperatures fitted",
    "order": "the order of revealing",
    "per_step": "the number of positions revealed together",
    "block_size": "the block in which positions are revealed",
}


HASHES = {
    "sha256": "they are measured on different texts; name one for all with --data",
    "conditions_sha256": "they are measured under different conditions",
    "training": "they were trained on different texts",
}
"""What it means that rows differ in a hash."""


def sha256(text: str) -> str:
    """The hash that identifies a text in a protocol."""
    return hashlib.sha256(text.encode()).hexdigest()


def comparable(protocol: Mapping[str, Fact]) -> dict[str, Fact]:
    """The facts that must agree within a table, sorted by name: all except those of `MAY_DIFFER`."""
    return {name: protocol[name] for name in sorted(protocol) if name not in MAY_DIFFER}


def digest(protocol: Mapping[str, Fact]) -> str:
    """Ten hexadecimal digits, equal for comparable protocols."""
    return sha256(json.dumps(comparable(protocol)))[:10]


def check_comparable(protocols: Mapping[str, Mapping[str, Fact]]) -> str:
    """The common digest of the protocols of a table, which are keyed by the names of its rows.

    Raises UserError naming the first two rows that differ and the fact they differ in.
    """
    for (row, facts), (other_row, other_facts) in pairwise(protocols.items()):
        if digest(facts) == digest(other_facts):
            continue
        order = [*NAMES, *sorted({*comparable(facts), *comparable(other_facts)} - {*NAMES})]
        name = next(name for name in order if facts.get(name) != other_facts.get(name) and name not in MAY_DIFFER)
        if name in HASHES and name in facts and name in other_facts:
            raise UserError(f"{row} and {other_row} are not comparable: {HASHES[name]}.")
        value, other_value = (repr(f[name]) if name in f else "not recorded" for f in (facts, other_facts))
        raise UserError(
            f"{row} and {other_row} are not comparable: {NAMES.get(name, name)} is {value} for {row} and "
            f"{other_value} for {other_row}. Measure both in the same way."
        )
    return digest(next(iter(protocols.values())))
