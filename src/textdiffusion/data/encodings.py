"""How the bytes of a file become text: which encodings are allowed, and which one a file has."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ..core.errors import UserError
from .binary_files import HEAD, binary_kind, signature_kind

READ_SIZE = 1 << 20  # bytes read at a time
HEAD_SIZE = 1 << 16  # bytes that guesses look at
MAX_LINE = 1 << 23  # characters without a line break after which a chunk is cut elsewhere
DEFAULT = "utf-8"
WESTERN = "cp1252"
MAX_ACCENTS = 0.2  # fraction of letters beyond ASCII up to which a file that is not UTF-8 is taken for Western European

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_OF_TEXT = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "unicode_escape"})
_OTHERS = ("shift_jis", "euc_jp", "gb18030", "euc_kr", "big5", "cp1251", "koi8_r")
_NOT_LETTERS = bytes(byte for byte in range(128) if not chr(byte).isalpha())
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_BAD_ROW = re.compile("[\udc80-\udcff]{3,}")
_COMMON_UTF16 = re.compile(r"[\n \u3000-\u3002\uff0c]")

Opener = Callable[[], AbstractContextManager[tuple[BinaryIO, io.BufferedIOBase]]]
"""Opens a file: as it is, and decompressed."""


@dataclass(frozen=True)
class Reading:
    """How to read a file: its encoding, whether to leave out what does not fit, and a note about that for the user."""

    encoding: str
    lenient: bool = False
    note: str = ""


@dataclass
class _Trial:
    """What reading a whole file in one encoding shows."""

    nul_line: int = 0  # of the first NUL character; 0: there is none
    nuls: int = 0
    line: int = 0  # of the first invalid byte; 0: there is none
    offset: int = 0
    byte: int = 0


def parse_encodings(names: str) -> list[str]:
    """The encodings in a list separated by commas. Raises UserError for one that is not an encoding of text."""
    return [_check_encoding(name.strip()) for name in names.split(",")]


def _check_encoding(name: str) -> str:
    common = "common ones are utf-8, utf-16 and latin-1"
    try:
        encoding = codecs.lookup(name).name
    except (LookupError, ValueError):  # ValueError: a NUL or a surrogate in the name
        raise UserError(f"There is no encoding {name[:40]!r}; {common}.") from None
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):  # a codec from bytes to bytes, such as hex
        encoding = ""
    if not encoding or encoding in _NOT_OF_TEXT:
        raise UserError(f"{name!r} is not an encoding of text; {common}.")
    return encoding


def choose_reading(
    path: Path, opened: Opener, encodings: Sequence[str] = (DEFAULT,), *, lenient: bool = False, options: bool = True
) -> Reading:
    """How to read a file: by its byte order mark, else in the first of `encodings` that fits all of it.

    With the default encoding, UTF-16 and UTF-32 without a mark are recognised, and Western European text is read as
    cp1252, with a note. `lenient` leaves out bytes that are invalid, and NULs. `options`: errors may advise settings of
    the text. Raises UserError for a file that is not text, or in an encoding that cannot be told.
    """
    with opened() as (_, stream):
        head = stream.read(HEAD_SIZE)
    marked = next((encoding for mark, encoding in _BOMS if head.startswith(mark)), "")
    is_default = list(encodings) == [DEFAULT]
    guess = ""
    if is_default and not marked and not signature_kind(head[:HEAD]):
        guess = _utf32(head) or _utf16_of_ascii(head) or _utf16_of_other_scripts(head)
    if guess:
        note = f"{path} looks like {guess[:6].upper()} without a byte order mark and is read as {guess}"
        candidates = [Reading(guess, lenient, note)]
    else:
        names = [marked] if marked else [_without_mark(name, head) for name in encodings]
        candidates = [Reading(name, lenient) for name in names]
    trials = []
    for reading in candidates:
        trials.append(trial := _try(opened, reading.encoding))
        if not trial.line:
            return _checked_for_nuls(path, reading, trial, head, options)
    first, trial = candidates[0], trials[0]
    if kind := binary_kind(head[:HEAD]):
        raise _binary(path, kind)
    counts = _count(opened)
    if is_default and not marked and not lenient and (found := _fallback(path, opened, head, trial, counts, options)):
        return found
    if lenient:
        return replace(first, note=f"{path}: bytes that are not {first.encoding} are left out, {_where(trial)}")
    raise _undecodable(path, first.encoding, trial, _likely(head, counts), options)


def decode_chunks(stream: io.BufferedIOBase, reading: Reading) -> Iterator[str]:
    """Text in chunks, cut after line breaks. \\r\\n and \\r become \\n, and a byte order mark is removed."""
    decoder = codecs.getincrementaldecoder(reading.encoding)("ignore" if reading.lenient else "strict")
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    buffer, at_start = "", True
    while True:
        raw = stream.read(READ_SIZE)
        text = decoder.decode(raw, final=not raw)
        if at_start and text:
            text, at_start = text.removeprefix("\ufeff"), False
        if reading.lenient:
            text = text.replace("\0", "")
        buffer += newlines.decode(text, final=not raw)
        if not raw:
            break
        cut = buffer.rfind("\n") + 1
        if not cut and len(buffer) >= MAX_LINE:
            cut = buffer.rfind(" ") + 1 or len(buffer)
        if cut:
            yield buffer[:cut]
            buffer = buffer[cut:]
    if buffer:
        yield buffer


def _try(opened: Opener, encoding: str) -> _Trial:
    """Decode all of a file, up to the first invalid byte."""
    decoder = codecs.getincrementaldecoder(encoding)()
    trial, bytes_read, line = _Trial(), 0, 1
    with opened() as (_, stream):
        while True:
            raw = stream.read(READ_SIZE)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeError as error:
                start = error.start if isinstance(error, UnicodeDecodeError) else 0
                data = error.object if isinstance(error, UnicodeDecodeError) else raw
                before = data[:start].decode(encoding, "replace")
                trial.line = line + before.count("\n")
                trial.offset, trial.byte = bytes_read - pending + start, data[start] if data else 0
                return trial
            if (nuls := text.count("\0")) and not trial.nul_line:
                trial.nul_line = line + text[: text.index("\0")].count("\n")
            trial.nuls += nuls
            line += text.count("\n")
            bytes_read += len(raw)
            if not raw:
                return trial


def _checked_for_nuls(path: Path, reading: Reading, trial: _Trial, head: bytes, options: bool) -> Reading:
    if not trial.nuls:
        return replace(reading, lenient=False)
    if reading.lenient:
        note = f"{path}: NULs ({trial.nuls}, the first in line {trial.nul_line}) are left out"
        return replace(reading, note="; ".join(filter(None, (reading.note, note))))
    if kind := signature_kind(head[:HEAD]):
        raise _binary(path, kind)
    hint = "Set text.encoding=utf-16-le if it is UTF-16, or text.skip_bad=true to leave NULs out."
    raise UserError(
        f"{path} has NULs ({trial.nuls}, the first in line {trial.nul_line}), so it may not be text. "
        f"{hint if options else 'Convert it to UTF-8.'}"
    )


@dataclass
class _Counts:
    """Of a file read as UTF-8: invalid bytes, those in rows of three, valid characters beyond ASCII, ASCII letters."""

    bad: int = 0
    in_rows: int = 0
    valid: int = 0
    letters: int = 0

    @property
    def is_western(self) -> bool:
        # Letters with accents stand alone or in pairs; other alphabets fill words with such bytes.
        few = self.bad <= MAX_ACCENTS * (self.letters + self.bad) and self.in_rows <= MAX_ACCENTS * self.bad
        return not self.valid and few


def _count(opened: Opener) -> _Counts:
    counts = _Counts()
    with opened() as (_, stream):
        for text in _decode_with_escapes(stream):
            bad, ascii_text = len(_BAD_BYTE.findall(text)), text.encode("ascii", "ignore")
            counts.bad += bad
            counts.in_rows += sum(map(len, _BAD_ROW.findall(text)))
            counts.valid += len(text) - bad - len(ascii_text)
            counts.letters += len(ascii_text.translate(None, _NOT_LETTERS))
    return counts


def _fallback(path: Path, opened: Opener, head: bytes, trial: _Trial, counts: _Counts, options: bool) -> Reading | None:
    """The encoding of a file that is not UTF-8, if one is likely enough to be used unasked."""
    if not counts.is_western or _try(opened, WESTERN).line:
        return None
    hint = "; if that is wrong, set text.encoding" if options else ""
    sample = _sample(head, trial.offset)
    return Reading(WESTERN, note=f"{path} is not UTF-8 ({_where(trial)}) and is read as {WESTERN}{sample}{hint}")


def _decode_with_escapes(stream: io.BufferedIOBase) -> Iterator[str]:
    """UTF-8 in which an invalid byte is a lone surrogate."""
    decoder = codecs.getincrementaldecoder(DEFAULT)("surrogateescape")
    while raw := stream.read(READ_SIZE):
        yield decoder.decode(raw)
    yield decoder.decode(b"", final=True)


def _sample(head: bytes, offset: int) -> str:
    """A few characters around an invalid byte, as they are now read."""
    text = " ".join(head[max(offset - 12, 0) : offset + 12].decode(WESTERN, "replace").split())
    return f", such as {text!r}" if text.isprintable() and text else ""


def _without_mark(encoding: str, head: bytes) -> str:
    """utf-16 and utf-32 name no byte order; without a mark the file's bytes tell it."""
    if encoding == "utf-16":
        return _utf16_of_ascii(head) or "utf-16-le"
    if encoding == "utf-32":
        return "utf-32-be" if head[:1] == b"\0" else "utf-32-le"
    return encoding


def _utf16_of_ascii(head: bytes) -> str:
    """The byte order of UTF-16 with many characters of ASCII; empty if this is not such text."""
    pairs = len(head) // 2
    even, odd = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if pairs < 2 or max(even, odd) < 0.3 * pairs or min(even, odd) > 0.02 * pairs:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _utf32(head: bytes) -> str:
    """The byte order of UTF-32, which hardly any other bytes fit; empty if this is not such text."""
    fits = (name for name in ("utf-32-le", "utf-32-be") if len(head) >= 8 and b"\0" in head and _fits(name, head))
    return next((name for name in fits if "\0" not in head[: len(head) // 4 * 4].decode(name)), "")


def _utf16_of_other_scripts(head: bytes) -> str:
    """The byte order of UTF-16 in which common characters (spaces, line breaks, stops) are frequent, or empty."""
    if b"\0" not in head and _fits("utf-8", head):
        return ""
    for encoding in ("utf-16-le", "utf-16-be"):
        text = head[: len(head) // 2 * 2].decode(encoding, "replace")
        is_clean = "\ufffd" not in text[:-1] and "\0" not in text and sum(map(str.isprintable, text)) > 0.9 * len(text)
        if is_clean and len(_COMMON_UTF16.findall(text)) > 0.02 * len(text):
            return encoding
    return ""


def _where(trial: _Trial) -> str:
    return f"the first, 0x{trial.byte:02x}, in line {trial.line}"


def _binary(path: Path, kind: str) -> UserError:
    return UserError(f"{path} looks like {kind}, not text.")


def _undecodable(path: Path, encoding: str, trial: _Trial, likely: str, options: bool) -> UserError:
    location = f"offset {trial.offset}, line {trial.line}"
    problem = f"{path} is not {encoding}: byte 0x{trial.byte:02x} at {location} is invalid."
    if not options:
        return UserError(f"{problem} Convert it to UTF-8.")
    return UserError(
        f"{problem} Set text.encoding to its encoding, for example text.encoding={likely}, or text.skip_bad=true to "
        "leave such bytes out."
    )


def _likely(head: bytes, counts: _Counts) -> str:
    """An encoding that a file which is not UTF-8 could have."""
    if counts.is_western or counts.valid > counts.bad:
        return "latin-1"
    return next((name for name in _OTHERS if _fits(name, head)), "latin-1")


def _fits(encoding: str, head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head, final=len(head) < HEAD_SIZE)
    except UnicodeError:
        return False
    return True
