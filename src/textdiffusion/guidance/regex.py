"""The parser of regular expressions."""

from __future__ import annotations

from ..core.errors import UserError
from .patterns import EMPTY, WORD_RANGES, Node, Ranges, char_set, complement_ranges, concat, star, union

_CLASSES: dict[str, Ranges] = {"d": [(48, 57)], "w": WORD_RANGES, "s": [(9, 13), (32, 32)]}
_HEX_DIGITS = {"x": 2, "u": 4}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}

MAX_REPEATS = 1000
_DIGITS = 9
MAX_SIZE = 5000
"""Characters and sets of a pattern once its repeats are written out."""


def parse(pattern: str) -> Node:
    r"""The expression of a pattern, which the whole text must match.

    Letters stand for themselves; `.` is any character except a line break, `[a-z]` and `[^a-z]` are sets, `\d \w \s`
    are sets of ASCII characters and `\D \W \S` all others, `\x41` and `\u20ac` are characters by their code point, `|`
    is or, `( )` groups, and `* + ? {3} {2,5}` repeat.
    Raises UserError for other syntax (`^ $`, lazy repeats, look-around, back references) and for too large patterns.
    """
    try:
        node, _, i = _union(pattern, 0)
    except RecursionError:
        raise UserError("The pattern is too long, or has too many groups in each other.") from None
    if i < len(pattern):
        raise _error(pattern, i, "closes a group that was not opened")
    return node


def escape(text: str) -> str:
    """The pattern that matches `text` alone."""
    return "".join(
        f"\\{c}" if not c.isalnum() and c.isascii() and c.isprintable() and c not in " _" else c for c in text
    )


def _error(pattern: str, i: int, problem: str) -> UserError:
    shown = pattern if len(pattern) <= 100 else f"{pattern[:100]}..."
    return UserError(f"In the pattern {shown!r}, {pattern[i : i + 1]!r} at position {i} {problem}.")


Parsed = tuple[Node, int, int]
"""An expression, its size with repeats written out, and the index after it."""


def _union(pattern: str, i: int) -> Parsed:
    options, total = [], 0
    while True:
        parts = []
        while i < len(pattern) and pattern[i] not in "|)":
            node, size, i = _repeat(pattern, i)
            parts.append(node)
            total += size
            if total > MAX_SIZE:
                raise UserError(
                    f"The pattern has more than {MAX_SIZE:,} characters once its repeats are written out; shorten it."
                )
        options.append(concat(*parts))
        if pattern[i : i + 1] != "|":
            return union(options), total, i
        i += 1


def _repeat(pattern: str, i: int) -> Parsed:
    node, size, i = _atom(pattern, i)
    low, high, end = _repeat_counts(pattern, i)
    if end == i:
        return node, size, i
    size *= max(low, high or 0, 1)
    if size > MAX_SIZE:
        raise _error(pattern, i, f"makes the pattern longer than {MAX_SIZE:,} characters")
    if _repeat_counts(pattern, end)[2] != end:
        raise _error(pattern, end, "repeats a repeat; put the first one in a group")
    optional = star(node) if high is None else EMPTY
    for _ in range(0 if high is None else high - low):
        optional = union([EMPTY, concat(node, optional)])
    return concat(*[node] * low, optional), size, end


def _repeat_counts(pattern: str, i: int) -> tuple[int, int | None, int]:
    """The fewest and most repeats (None: no limit) that stand at `i`, and the index after them."""
    mark = pattern[i : i + 1]
    if mark and mark in "*+?":
        return int(mark == "+"), 1 if mark == "?" else None, i + 1
    if mark != "{":
        return 1, 1, i
    counts, closed, _ = pattern[i + 1 :].partition("}")
    low, comma, high = counts.partition(",")
    if len(low) > _DIGITS or len(high) > _DIGITS:
        raise _error(pattern, i, f"repeats more than {MAX_REPEATS:,} times")
    if not closed or not low.isdecimal() or (high and not high.isdecimal()):
        raise _error(pattern, i, r"is not a count such as {3} or {2,5}; write \{ for the character")
    maximum = (int(high) if high else None) if comma else int(low)
    if maximum is not None and maximum < int(low):
        raise _error(pattern, i, "has its counts in the wrong order")
    if max(int(low), maximum or 0) > MAX_REPEATS:
        raise _error(pattern, i, f"repeats more than {MAX_REPEATS:,} times")
    return int(low), maximum, i + len(counts) + 2


def _atom(pattern: str, i: int) -> Parsed:
    mark = pattern[i]
    if mark == "(":
        if pattern[i + 1 : i + 2] == "?" and pattern[i + 1 : i + 3] != "?:":
            raise _error(pattern, i + 1, "is not supported here; groups are ( ) or (?: )")
        node, size, end = _union(pattern, i + (3 if pattern[i + 1 : i + 2] == "?" else 1))
        if pattern[end : end + 1] != ")":
            raise _error(pattern, i, "opens a group that is never closed")
        return node, size, end + 1
    if mark == "[":
        node, end = _char_class(pattern, i)
        return node, 1, end
    if mark in "*+?{":
        raise _error(pattern, i, "has nothing to repeat")
    if mark in "^$":
        raise _error(pattern, i, f"is not needed, because the whole text must match; write \\{mark} for the character")
    if mark == ".":
        return char_set(complement_ranges([(10, 10)])), 1, i + 1
    ranges, i = _char(pattern, i)
    return char_set(ranges), 1, i


def _char(pattern: str, i: int) -> tuple[Ranges, int]:
    mark = pattern[i]
    if mark != "\\":
        return [(ord(mark), ord(mark))], i + 1
    name = pattern[i + 1 : i + 2]
    if name.lower() in _CLASSES:
        ranges = _CLASSES[name.lower()]
        return (ranges if name in _CLASSES else complement_ranges(ranges)), i + 2
    if name in _HEX_DIGITS:
        digits = pattern[i + 2 : i + 2 + _HEX_DIGITS[name]]
        if len(digits) < _HEX_DIGITS[name] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise _error(pattern, i, rf"needs {_HEX_DIGITS[name]} hexadecimal digits after \{name}")
        code = int(digits, 16)
        return [(code, code)], i + 2 + len(digits)
    if not name or (name.isalnum() and name not in _ESCAPES):
        raise _error(pattern, i, rf"before {name!r} is not an escape; use \d \w \s \D \W \S \n \t")
    code = ord(_ESCAPES.get(name, name))
    return [(code, code)], i + 2


def _char_class(pattern: str, i: int) -> tuple[Node, int]:
    start, i = i, i + 1
    is_complement = pattern[i : i + 1] == "^"
    i += is_complement
    ranges: Ranges = []
    while i < len(pattern) and (pattern[i] != "]" or not ranges):
        new_ranges, i = _char(pattern, i)
        if pattern[i : i + 1] == "-" and pattern[i + 1 : i + 2] not in ("", "]"):
            (first, *_), dash = new_ranges, i
            (last, *_), i = _char(pattern, i + 1)
            if first[0] != first[1] or last[0] != last[1]:
                raise _error(pattern, dash, r"cannot make a range with a set such as \d; write \- for the character")
            if first > last:
                raise _error(pattern, i - 1, "ends a range below its start")
            new_ranges = [(first[0], last[0])]
        ranges += new_ranges
    if i >= len(pattern):
        raise _error(pattern, start, "opens a set that is never closed")
    return char_set(complement_ranges(ranges) if is_complement else ranges), i + 1
