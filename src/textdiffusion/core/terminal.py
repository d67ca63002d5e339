"""Text for a screen: control characters made visible, and symbols that a terminal's encoding lacks replaced.

Texts of a model, names in files of others and messages of errors may contain escape sequences, which move the cursor,
set titles or make a terminal type answers. Whatever is printed passes through `visible`, and never fails for its
encoding.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

BROKEN = "\N{REPLACEMENT CHARACTER}"
LAYOUT = "\n\t"
"""Control characters that belong to the layout of a text."""

_ERRORS = "textdiffusion.replace"
_SUBSTITUTES = {"±": "+-", "░": "_", "⏎": "/", "⇥": ">", "·": ".", "…": "...", "×": "x", "≤": "<=", "‘": "'", "’": "'"}


def visible(text: str, keep: str = "") -> str:
    """`text` with a symbol for each character without a glyph or with an effect on the screen, except for `keep`."""
    return text if text.isprintable() else "".join(c if c in keep else _symbol(c) for c in text)


@cache
def _symbol(character: str) -> str:
    if character == "\n":
        return "⏎"
    if character == "\t":
        return "⇥"
    if character < " ":
        return chr(0x2400 + ord(character))  # the control pictures
    category = unicodedata.category(character)
    if category == "Cs":
        return BROKEN
    joiner = character in "\u200c\u200d"  # emoji and several scripts need them
    return "·" if category in ("Cc", "Zl", "Zp") or (category == "Cf" and not joiner) else character


def encodable(text: str, encoding: str | None) -> str:
    """`text` with a substitute for each character that the encoding lacks."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SUBSTITUTES.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _substitute)


def never_fail_to_encode() -> None:
    """Makes standard output and error replace what their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors=_ERRORS)


class TextConsole(Console):
    """A console whose text, whatever it comes from, has no control characters and fits its encoding."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`; those that steer the terminal are rich's own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(encodable(visible(segment.text, LAYOUT), self.encoding), segment.style)
