"""Regular expressions as automata over the bytes of UTF-8.

An expression is a tuple whose first entry says what it is. Its derivative by a byte matches what may follow that byte
(Brzozowski 1964): the derivatives of an expression are the states of its automaton.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ..core.errors import UserError

Node = tuple  # ("set", a mask of bytes), ("cat", first, rest), ("or", nodes), ("star", node), ("not", node)
Ranges = list[tuple[int, int]]  # of code points, both ends included

NOTHING: Node = ("set", 0)
EMPTY: Node = ("star", NOTHING)
LARGEST = 4000  # states

WORDLIKE: Ranges = [(48, 57), (65, 90), (95, 95), (97, 122)]
LAST = 0x10FFFF  # of the code points


def cat(*nodes: Node) -> Node:
    """One after the other."""
    *before, node = nodes or (EMPTY,)
    for first in reversed(before):
        if NOTHING in (first, node):
            return NOTHING
        if first[0] == "cat":
            node = cat(*first[1:], node)
        elif first != EMPTY:
            node = first if node == EMPTY else ("cat", first, node)
    return node


def either(nodes: Iterable[Node]) -> Node:
    """Any of them."""
    flat: set[Node] = set()
    for node in nodes:
        flat |= node[1] if node[0] == "or" else {node}
    mask = 0
    for node in [node for node in flat if node[0] == "set"]:
        mask |= node[1]
        flat.remove(node)
    if mask or not flat:
        flat.add(("set", mask))
    return flat.pop() if len(flat) == 1 else ("or", frozenset(flat))


def star(node: Node) -> Node:
    """Any number of them."""
    return node if node[0] == "star" else ("star", node)


def inverse(node: Node) -> Node:
    """Whatever does not match."""
    return node[1] if node[0] == "not" else ("not", node)


def characters(ranges: Ranges) -> Node:
    """One character of those in `ranges`."""
    found = []
    stack = [(low, high) for low, high in ranges if low <= high]
    while stack:
        low, high = stack.pop()
        # Cut where the number of bytes changes and around surrogates, then where a byte before the last one changes.
        cut = next((c for c in (0x80, 0x800, 0xD800, 0xE000, 0x10000) if low < c <= high), None)
        if cut is None and low >= 0x80:
            for size in (6, 12, 18):
                last = (1 << size) - 1
                if low >> size != high >> size:
                    if low & last:
                        cut = (low | last) + 1
                    elif high & last != last:
                        cut = high & ~last
                if cut is not None:
                    break
        if cut is not None:
            stack += [(low, cut - 1), (cut, high)]
        elif not 0xD800 <= low < 0xE000:
            ends = zip(chr(low).encode(), chr(high).encode(), strict=True)
            found.append(cat(*(("set", (1 << b + 1) - (1 << a)) for a, b in ends)))
    return either(found)


def negated(ranges: Ranges) -> Ranges:
    """All other characters."""
    outside, low = [], 0
    for first, last in sorted(ranges):
        outside.append((low, first - 1))
        low = max(low, last + 1)
    return [(a, b) for a, b in [*outside, (low, LAST)] if a <= b]


ANY: Node = characters([(0, LAST)])
ALL: Node = star(ANY)


def literal(text: str) -> Node:
    """The text itself."""
    return cat(*(("set", 1 << byte) for byte in text.encode()))


def _wordlike(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


# Of scripts beyond, every character counts as a letter: all punctuation there is would take a thousand states.
_PUNCTUATED = (*range(0x100), *range(0x2000, 0x2070), *range(0x3000, 0x3040))
_BESIDE: Node = characters([(code, code) for code in _PUNCTUATED if not _wordlike(chr(code))])


def word(text: str) -> Node:
    """Any text with `text` in it that does not go on as a word on either side.

    Words are letters, marks, numbers and underscores. Spaces and punctuation are told from them in the Latin, general
    and CJK blocks of Unicode.
    """
    before = either([EMPTY, cat(ALL, _BESIDE)]) if _wordlike(text[0]) else ALL
    return cat(before, literal(text), ended(text))


def ended(text: str) -> Node:
    """What may follow `text` where it is a whole word."""
    return either([EMPTY, cat(_BESIDE, ALL)]) if _wordlike(text[-1]) else ALL


@lru_cache(maxsize=1 << 16)
def _nullable(node: Node) -> bool:
    kind = node[0]
    if kind == "cat":
        return _nullable(node[1]) and _nullable(node[2])
    if kind == "or":
        return any(map(_nullable, node[1]))
    return kind == "star" or (kind == "not" and not _nullable(node[1]))


@lru_cache(maxsize=1 << 16)
def _derivative(node: Node, byte: int) -> Node:
    kind = node[0]
    if kind == "set":
        return EMPTY if node[1] >> byte & 1 else NOTHING
    if kind == "cat":
        first = cat(_derivative(node[1], byte), node[2])
        return either([first, _derivative(node[2], byte)]) if _nullable(node[1]) else first
    if kind == "or":
        return either(_derivative(part, byte) for part in node[1])
    if kind == "star":
        return cat(_derivative(node[1], byte), node)
    return inverse(_derivative(node[1], byte))


def automaton(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """The state after each byte [s, 256], state 0 first, and whether a text may end in each state [s].

    Raises UserError where there are more than `LARGEST` states.
    """
    classes = _byte_classes(node)
    first = [int(np.flatnonzero(classes == c)[0]) for c in range(int(classes.max()) + 1)]
    numbers, states, rows = {node: 0}, [node], []
    for state in states:  # grows meanwhile
        row = []
        for byte in first:
            after = _derivative(state, byte)
            if after not in numbers:
                numbers[after] = len(states)
                states.append(after)
            row.append(numbers[after])
        rows.append(row)
        if len(states) > LARGEST:
            raise UserError(f"The pattern has more than {LARGEST} states; a shorter one is needed.")
    return np.array(rows)[:, classes], np.array([_nullable(state) for state in states])


def _byte_classes(node: Node) -> np.ndarray:
    """A number for each byte, the same for bytes that no set in the expression tells apart."""
    masks, stack = set(), [node]
    while stack:
        kind, *parts = stack.pop()
        if kind == "set":
            masks.add(parts[0])
        else:
            stack += list(parts[0]) if kind == "or" else parts
    told = np.array([[mask >> byte & 1 for mask in sorted(masks)] for byte in range(256)])
    return np.unique(told, axis=0, return_inverse=True)[1].reshape(-1)
