"""Text normalisers by name."""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import UserError

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LETTERS = bytes(c if c in b"abcdefghijklmnopqrstuvwxyz" else 0x20 for c in bytes(range(256)).lower())


def _text8(text: str) -> str:
    """The rules of text8: a-z and single spaces; ASCII capitals in lower case, digits spelled out, the rest spaces.

    White space at either end becomes one space, so that consecutive chunks can be joined.
    """
    raw = text.encode("ascii", "replace")
    for digit, word in enumerate(_DIGITS):
        raw = raw.replace(b"%d" % digit, b" %s " % word.encode())
    raw = raw.translate(_LETTERS)
    words = b" ".join(raw.split()).decode()
    if not words:
        return " " if raw else ""
    return f"{' ' if raw[:1] == b' ' else ''}{words}{' ' if raw[-1:] == b' ' else ''}"


NORMALISERS: dict[str, Callable[[str], str]] = {"none": lambda text: text, "lower": str.lower, "text8": _text8}


def normalise(name: str, text: str) -> str:
    """`text` after the normaliser `name`. Raises UserError for an unknown name."""
    if name not in NORMALISERS:
        raise UserError(f"There is no normaliser {name!r}; it can be {', '.join(NORMALISERS)}.")
    return NORMALISERS[name](text)


class StreamingNormalizer:
    """Normalises consecutive chunks of one text. Joined, the results equal the normalised text if no word is cut."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ends_in_space = False

    def __call__(self, chunk: str) -> str:
        text = normalise(self.name, chunk)
        if self.name == "text8" and text:
            text = text[1:] if self._ends_in_space and text[0] == " " else text
            self._ends_in_space = not text or text[-1] == " "
        return text
