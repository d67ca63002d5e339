"""Regular expressions as automata over the bytes of UTF-8.

An expression is a tuple whose first entry says what it is. Its derivative by a byte matches what may follow that byte
(Brzozowski 1964): the derivatives of an expression are the states of its automaton.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from ..errors import UserError

Node = tuple  # ("set", a mask of bytes), ("cat", first, rest), ("or", nodes), ("star", node), ("not", node)
Ranges = list[tuple[int, int]]  # of code points, both ends included

NOTHING: Node = ("set", 0)
EMPTY: Node = ("star", NOTHING)
LARGEST = 4000  # states

_CLASSES: dict[str, Ranges] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_LAST = 0x10FFFF


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


ANY: Node = characters([(0, _LAST)])
ALL: Node = star(ANY)


def literal(text: str) -> Node:
    """The text itself."""
    return cat(*(("set", 1 << byte) for byte in text.encode()))


def word(text: str) -> Node:
    """Any text with `text` in it that does not go on as a word on either side."""
    beside = characters(_negated([*_CLASSES["w"], (0x80, _LAST)]))
    before = either([EMPTY, cat(ALL, beside)]) if _wordlike(text[0]) else ALL
    return cat(before, literal(text), ended(text))


def ended(text: str) -> Node:
    """What may follow `text` where it is a whole word."""
    beside = characters(_negated([*_CLASSES["w"], (0x80, _LAST)]))
    return either([EMPTY, cat(beside, ALL)]) if _wordlike(text[-1]) else ALL


def _wordlike(character: str) -> bool:
    return character.isalnum() or character == "_"


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


def _negated(ranges: Ranges) -> Ranges:
    outside, low = [], 0
    for first, last in sorted(ranges):
        outside.append((low, first - 1))
        low = max(low, last + 1)
    return [(a, b) for a, b in [*outside, (low, _LAST)] if a <= b]


def parse(pattern: str) -> Node:
    r"""The expression that all of a text must match.

    Letters stand for themselves; `.` is any character but a line break, `[a-z]` and `[^a-z]` are sets, `\d \w \s` sets
    of ASCII characters and `\D \W \S` all others, `|` is or, `( )` groups, and `* + ? {3} {2,5}` repeat. Raises
    UserError for anything else that a regular expression may have: `^ $`, lazy repeats, look-around, back references.
    """
    node, at = _either(pattern, 0)
    if at < len(pattern):
        raise _refused(pattern, at, "closes no group")
    return node


def _refused(pattern: str, at: int, why: str) -> UserError:
    return UserError(f"In the pattern {pattern!r}, {pattern[at : at + 1]!r} at place {at} {why}.")


def _either(pattern: str, at: int) -> tuple[Node, int]:
    options = []
    while True:
        parts = []
        while at < len(pattern) and pattern[at] not in "|)":
            node, at = _repeated(pattern, at)
            parts.append(node)
        options.append(cat(*parts))
        if pattern[at : at + 1] != "|":
            return either(options), at
        at += 1


def _repeated(pattern: str, at: int) -> tuple[Node, int]:
    node, at = _atom(pattern, at)
    low, high, end = _counts(pattern, at)
    if end == at:
        return node, at
    if _counts(pattern, end)[2] != end:
        raise _refused(pattern, end, "repeats a repeat, which is not supported; put it in a group if it is meant")
    most = star(node) if high is None else EMPTY
    for _ in range(0 if high is None else high - low):
        most = either([EMPTY, cat(node, most)])
    return cat(*[node] * low, most), end


def _counts(pattern: str, at: int) -> tuple[int, int | None, int]:
    """How often what is before `at` may occur, and where the pattern goes on."""
    mark = pattern[at : at + 1]
    if mark and mark in "*+?":
        return int(mark == "+"), 1 if mark == "?" else None, at + 1
    if mark != "{":
        return 1, 1, at
    inside, closed, _ = pattern[at + 1 :].partition("}")
    low, comma, high = inside.partition(",")
    if not closed or not low.isdecimal() or (high and not high.isdecimal()):
        raise _refused(pattern, at, r"is no count such as {3} or {2,5}; the character itself is \{")
    most = (int(high) if high else None) if comma else int(low)
    if most is not None and most < int(low):
        raise _refused(pattern, at, "has its counts the wrong way round")
    return int(low), most, at + len(inside) + 2


def _atom(pattern: str, at: int) -> tuple[Node, int]:
    mark = pattern[at]
    if mark == "(":
        if pattern[at + 1 : at + 2] == "?" and pattern[at + 1 : at + 3] != "?:":
            raise _refused(pattern, at + 1, "begins something that is not supported; groups are ( ) or (?: )")
        node, end = _either(pattern, at + (3 if pattern[at + 1 : at + 2] == "?" else 1))
        if pattern[end : end + 1] != ")":
            raise _refused(pattern, at, "opens a group that nothing closes")
        return node, end + 1
    if mark == "[":
        return _set(pattern, at)
    if mark in "*+?{":
        raise _refused(pattern, at, "repeats nothing")
    if mark in "^$":
        raise _refused(pattern, at, f"is not needed, as all of the text must match; the character itself is \\{mark}")
    if mark == ".":
        return characters(_negated([(10, 10)])), at + 1
    ranges, at = _character(pattern, at)
    return characters(ranges), at


def _character(pattern: str, at: int) -> tuple[Ranges, int]:
    mark = pattern[at]
    if mark != "\\":
        return [(ord(mark), ord(mark))], at + 1
    name = pattern[at + 1 : at + 2]
    if name.lower() in _CLASSES:
        ranges = _CLASSES[name.lower()]
        return (ranges if name in _CLASSES else _negated(ranges)), at + 2
    if not name or (name.isalnum() and name not in _ESCAPES):
        raise _refused(pattern, at, rf"and {name!r} are no escape; there are \d \w \s \D \W \S \n \t")
    code = ord(_ESCAPES.get(name, name))
    return [(code, code)], at + 2


def _set(pattern: str, at: int) -> tuple[Node, int]:
    start, at = at, at + 1
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: Ranges = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        some, at = _character(pattern, at)
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]") and len(some) == 1:
            other, at = _character(pattern, at + 1)
            some = [(some[0][0], other[-1][1])]
            if some[0][0] > some[0][1]:
                raise _refused(pattern, at - 1, "ends a range before it begins")
        ranges += some
    if at >= len(pattern):
        raise _refused(pattern, start, "opens a set that nothing closes")
    return characters(_negated(ranges) if negated else ranges), at + 1
