"""Regular expressions as automata over the bytes of UTF-8.

An expression is a tuple whose first entry is its kind. Its derivative by a byte matches what may follow that byte
(Brzozowski 1964); the derivatives of an expression are the states of its automaton.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ..core.errors import UserError

Node = tuple  # ("set", bit mask of bytes), ("cat", first, rest), ("or", nodes), ("star", node), ("not", node)
Ranges = list[tuple[int, int]]  # code points, both ends included

NOTHING: Node = ("set", 0)
EMPTY: Node = ("star", NOTHING)
MAX_STATES = 4000
MAX_WORK = 300_000_000
"""Expressions to compare while an automaton is made: those of all states, times the length of the pattern."""

WORD_RANGES: Ranges = [(48, 57), (65, 90), (95, 95), (97, 122)]
MAX_CODE_POINT = 0x10FFFF


def concat(*nodes: Node) -> Node:
    """The expressions one after the other."""
    *earlier, node = nodes or (EMPTY,)
    parts: list[Node] = []
    for first in earlier:
        while first[0] == "cat":
            parts.append(first[1])
            first = first[2]
        parts.append(first)
    for first in reversed(parts):
        if NOTHING in (first, node):
            return NOTHING
        if first != EMPTY:
            node = first if node == EMPTY else ("cat", first, node)
    return node


def union(nodes: Iterable[Node]) -> Node:
    """Any one of the expressions."""
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
    """Any number of repetitions."""
    return node if node[0] == "star" else ("star", node)


def complement(node: Node) -> Node:
    """All texts that do not match."""
    return node[1] if node[0] == "not" else ("not", node)


def char_set(ranges: Ranges) -> Node:
    """One character of `ranges`, as the bytes of its UTF-8."""
    options = []
    stack = [(low, high) for low, high in ranges if low <= high]
    while stack:
        low, high = stack.pop()
        # Cut where the number of bytes changes and around surrogates, then where a byte other than the last changes.
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
            options.append(concat(*(("set", (1 << b + 1) - (1 << a)) for a, b in ends)))
    return union(options)


def complement_ranges(ranges: Ranges) -> Ranges:
    """All characters outside `ranges`."""
    outside, low = [], 0
    for first, last in sorted(ranges):
        outside.append((low, first - 1))
        low = max(low, last + 1)
    return [(a, b) for a, b in [*outside, (low, MAX_CODE_POINT)] if a <= b]


ANY: Node = char_set([(0, MAX_CODE_POINT)])
ALL: Node = star(ANY)


def literal(text: str) -> Node:
    """The text itself."""
    return concat(*(("set", 1 << byte) for byte in text.encode()))


def _is_word_char(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


# In all other blocks every character counts as a letter: all punctuation of Unicode would take a thousand states.
_PUNCTUATED_BLOCKS = (*range(0x100), *range(0x2000, 0x2070), *range(0x3000, 0x3040))
_SEPARATOR: Node = char_set([(code, code) for code in _PUNCTUATED_BLOCKS if not _is_word_char(chr(code))])


def word(text: str) -> Node:
    """Any text that contains `text` as whole words.

    Word characters are letters, marks, numbers and underscores. Spaces and punctuation are recognised in the Latin,
    general and CJK blocks of Unicode.
    """
    before = union([EMPTY, concat(ALL, _SEPARATOR)]) if _is_word_char(text[0]) else ALL
    return concat(before, literal(text), word_end(text))


def word_end(text: str) -> Node:
    """What may follow `text` if it ends a word."""
    return union([EMPTY, concat(_SEPARATOR, ALL)]) if _is_word_char(text[-1]) else ALL


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
        first = concat(_derivative(node[1], byte), node[2])
        return union([first, _derivative(node[2], byte)]) if _nullable(node[1]) else first
    if kind == "or":
        return union(_derivative(part, byte) for part in node[1])
    if kind == "star":
        return concat(_derivative(node[1], byte), node)
    return complement(_derivative(node[1], byte))


def automaton(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """The state after each byte [s, 256], from state 0 on, and whether a text may end in each state [s].

    Raises UserError for more than `MAX_STATES` states, and for patterns that would take more than seconds.
    """
    try:
        return _automaton(node)
    except RecursionError:
        raise UserError("The pattern is too long; use a shorter one.") from None


def _automaton(node: Node) -> tuple[np.ndarray, np.ndarray]:
    length, work = _length(node), 0
    classes = _byte_classes(node)
    first = [int(np.flatnonzero(classes == c)[0]) for c in range(int(classes.max()) + 1)]
    numbers, states, rows = {node: 0}, [node], []
    for state in states:  # grows during the loop
        row = []
        for byte in first:
            next_state = _derivative(state, byte)
            if next_state not in numbers:
                numbers[next_state] = len(states)
                states.append(next_state)
            row.append(numbers[next_state])
        rows.append(row)
        work += length * (len(state[1]) if state[0] == "or" else 1)
        if work > MAX_WORK:
            raise UserError("The pattern is too complex; use smaller repeats, above all of repeats.")
        if len(states) > MAX_STATES:
            raise UserError(f"The pattern has more than {MAX_STATES} states; use a shorter one.")
    return np.array(rows)[:, classes], np.array([_nullable(state) for state in states])


def _length(node: Node) -> int:
    """The longest chain of expressions, one after or inside the other."""
    longest, stack = 0, [(node, 1)]
    seen: dict[int, int] = {}  # by identity: repeats share their expressions
    while stack:
        (kind, *parts), depth = stack.pop()
        longest = max(longest, depth)
        for child in () if kind == "set" else parts[0] if kind == "or" else parts:
            if seen.get(id(child), 0) < depth + 1:
                seen[id(child)] = depth + 1
                stack.append((child, depth + 1))
    return longest


def _byte_classes(node: Node) -> np.ndarray:
    """A class number for each byte; bytes that no set in the expression distinguishes share a class."""
    masks, stack = set(), [node]
    while stack:
        kind, *parts = stack.pop()
        if kind == "set":
            masks.add(parts[0])
        else:
            stack += list(parts[0]) if kind == "or" else parts
    membership = np.array([[mask >> byte & 1 for mask in sorted(masks)] for byte in range(256)])
    return np.unique(membership, axis=0, return_inverse=True)[1].reshape(-1)
