"""What a figure was measured on and how: recorded, hashed, and compared before figures share a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise

from ..core.errors import UserError

Fact = str | int | float | bool

MAY_DIFFER = frozenset({"text", "seed", "draws", "likelihood"})
"""Facts that are the run's or the estimate's own: the name of the text, beside its hash; how a bound was estimated."""

COUNTED = {
    "stream": "characters",
    "lines": "characters and line breaks",
    "documents": "characters; ends of documents are modelled and not counted",
}
"""What is counted, by the layout of a text."""

NAMES = {
    "sha256": "the text (its hash)",
    "characters": "the number of characters counted",
    "counted": "what is counted",
    "given": "what is given (its hash)",
    "told": "sources or labels (their hash)",
    "tokenizer": "the kind of token",
    "window": "the window in tokens",
    "windows": "the number of windows",
    "stride": "the stride in tokens",
    "weights": "the kind of weights",
    "dtype": "the precision",
    "unknown": "the share of unknown tokens",
    "training": "the training text (its hash)",
    "calibration": "the number of temperatures fitted",
}


def sha256(text: str) -> str:
    """The hash by which a protocol knows a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def comparable(protocol: Mapping[str, Fact]) -> dict[str, Fact]:
    """The facts that figures of one table must agree in: all but those that may differ, in the order of their names."""
    return {name: protocol[name] for name in sorted(protocol) if name not in MAY_DIFFER}


def digest(protocol: Mapping[str, Fact]) -> str:
    """Ten hexadecimal digits that are the same for protocols that agree."""
    return sha256(json.dumps(comparable(protocol)))[:10]


def check_comparable(protocols: Mapping[str, Mapping[str, Fact]]) -> str:
    """The digest that the protocols of one table share; keys are the names of their rows.

    Raises UserError at the first two that differ, with what they differ in.
    """
    for (one, left), (other, right) in pairwise(protocols.items()):
        if digest(left) == digest(right):
            continue
        order = [*NAMES, *sorted({*comparable(left), *comparable(right)} - {*NAMES})]
        name = next(name for name in order if left.get(name) != right.get(name) and name not in MAY_DIFFER)
        first, second = (repr(facts[name]) if name in facts else "not recorded" for facts in (left, right))
        raise UserError(
            f"{one} and {other} cannot share a table: {NAMES.get(name, name)} is {first} for the one and {second} for "
            "the other. Measure both in the same way."
        )
    return digest(next(iter(protocols.values())))
