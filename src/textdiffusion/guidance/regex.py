"""The regular expressions that a user may write."""

from __future__ import annotations

from ..core.errors import UserError
from .patterns import EMPTY, WORDLIKE, Node, Ranges, cat, characters, either, negated, star

_CLASSES: dict[str, Ranges] = {"d": [(48, 57)], "w": WORDLIKE, "s": [(9, 13), (32, 32)]}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}

MOST = 1000  # times that something is repeated


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
    if max(int(low), most or 0) > MOST:
        raise _refused(pattern, at, f"repeats more than {MOST:,} times")
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
        return characters(negated([(10, 10)])), at + 1
    ranges, at = _character(pattern, at)
    return characters(ranges), at


def _character(pattern: str, at: int) -> tuple[Ranges, int]:
    mark = pattern[at]
    if mark != "\\":
        return [(ord(mark), ord(mark))], at + 1
    name = pattern[at + 1 : at + 2]
    if name.lower() in _CLASSES:
        ranges = _CLASSES[name.lower()]
        return (ranges if name in _CLASSES else negated(ranges)), at + 2
    if not name or (name.isalnum() and name not in _ESCAPES):
        raise _refused(pattern, at, rf"and {name!r} are no escape; there are \d \w \s \D \W \S \n \t")
    code = ord(_ESCAPES.get(name, name))
    return [(code, code)], at + 2


def _set(pattern: str, at: int) -> tuple[Node, int]:
    start, at = at, at + 1
    others = pattern[at : at + 1] == "^"
    at += others
    ranges: Ranges = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        some, at = _character(pattern, at)
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            (first, *_), dash = some, at
            (last, *_), at = _character(pattern, at + 1)
            if first[0] != first[1] or last[0] != last[1]:
                raise _refused(pattern, dash, r"makes no range with a set such as \d; the character itself is \-")
            if first > last:
                raise _refused(pattern, at - 1, "ends a range before it begins")
            some = [(first[0], last[0])]
        ranges += some
    if at >= len(pattern):
        raise _refused(pattern, start, "opens a set that nothing closes")
    return characters(negated(ranges) if others else ranges), at + 1
