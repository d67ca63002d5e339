"""Memory-mapped token shards: a JSON header a person can read, then raw arrays.

A shard is one file. Its first 4096 bytes are JSON padded with spaces; then come the tokens, the characters each token
stands for (unless every token is one character), and for examples of their own the position at which each starts.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from ..core.errors import UserError

FORMAT = "textdiffusion token shard"
VERSION = 1
HEADER = 4096
BLOCK = 1 << 22


@dataclass(frozen=True)
class Header:
    """What the first 4096 bytes say. `dtype`s are numpy names, `sha256` covers everything after the header."""

    format: str
    version: int
    dtype: str
    tokens: int
    chars: int
    chars_dtype: str | None
    examples: int | None
    sha256: str

    def sizes(self) -> list[int]:
        """Bytes of the tokens, the characters and the starts, each filled up to a multiple of 8."""
        return [-(-count * np.dtype(kind).itemsize // 8) * 8 for kind, count in self.arrays()]

    def arrays(self) -> list[tuple[str, int]]:
        """The dtype and length of the three arrays; an absent one has length 0."""
        starts = 0 if self.examples is None else self.examples + 1
        return [
            (self.dtype, self.tokens),
            (self.chars_dtype or "uint8", self.tokens if self.chars_dtype else 0),
            ("int64", starts),
        ]


@dataclass(frozen=True)
class Shard:
    """An open shard. `counts` is None where every token is one character, `starts` is None for a stream.

    Example i is `tokens[starts[i]:starts[i + 1]]`.
    """

    path: Path
    header: Header
    tokens: np.ndarray
    counts: np.ndarray | None
    starts: np.ndarray | None

    def __len__(self) -> int:
        return self.header.tokens


class ShardWriter:
    """Writes a shard piece by piece; memory is one piece plus 8 bytes per example. Use as a context manager."""

    def __init__(self, path: Path, vocab_size: int, *, examples: bool) -> None:
        self.path = path
        self.dtype = smallest(vocab_size - 1)
        self._starts = array("q", [0]) if examples else None
        self._tokens = self._chars = 0
        self._hash = hashlib.sha256()
        self._file = path.open("w+b")
        self._file.write(b" " * HEADER)
        # Counts follow the tokens, so they wait in a file beside until all tokens are there.
        self._counts_path = path.with_name(path.name + ".counts")
        self._counts = self._counts_path.open("w+b")
        self._counted: bool | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        self._file.close()
        self._counts.close()
        self._counts_path.unlink(missing_ok=True)

    def write(self, ids: np.ndarray, counts: np.ndarray | None) -> None:
        """Append tokens and the characters each stands for (None: one each)."""
        if self._counted is None and len(ids):
            self._counted = counts is not None
        assert not len(ids) or self._counted == (counts is not None)
        self._append(ids.astype(self.dtype).tobytes())
        self._tokens += len(ids)
        if counts is None:
            self._chars += len(ids)
        else:
            self._chars += int(counts.sum())
            self._counts.write(np.minimum(counts, 65535).astype(np.uint16).tobytes())

    def end_example(self) -> None:
        """The tokens written since the last call are one example."""
        assert self._starts is not None
        self._starts.append(self._tokens)

    def _fill(self) -> None:
        self._append(bytes(-self._file.tell() % 8))

    def _append(self, raw: bytes) -> None:
        self._hash.update(raw)
        self._file.write(raw)

    def _finish(self) -> None:
        self._fill()
        self._counts.seek(0)
        while raw := self._counts.read(BLOCK):
            self._append(raw)
        self._fill()
        if self._starts is not None:
            self._append(self._starts.tobytes())
        header = Header(
            format=FORMAT,
            version=VERSION,
            dtype=self.dtype.name,
            tokens=self._tokens,
            chars=self._chars,
            chars_dtype="uint16" if self._counted else None,
            examples=None if self._starts is None else len(self._starts) - 1,
            sha256=self._hash.hexdigest(),
        )
        self._file.seek(0)
        self._file.write(json.dumps(asdict(header), indent=1).encode().ljust(HEADER - 1) + b"\n")


def smallest(largest: int) -> np.dtype:
    """The smallest unsigned type that holds `largest`."""
    return np.min_scalar_type(max(largest, 0))


def open_shard(path: Path) -> Shard:
    """Map a shard. Raises UserError where it is missing, no shard, or not as long as its header says."""
    header = _header(path)
    raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # a plain array: np.memmap's own indexing is slow
    parts = []
    offset = HEADER
    for (kind, count), size in zip(header.arrays(), header.sizes(), strict=True):
        parts.append(raw[offset : offset + count * np.dtype(kind).itemsize].view(kind))
        offset += size
    tokens, counts, starts = parts
    return Shard(
        path,
        header,
        tokens,
        counts if header.chars_dtype else None,
        None if header.examples is None else starts,
    )


def verify(path: Path) -> None:
    """Read a shard whole and compare its checksum. Raises UserError where it is damaged."""
    header = _header(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(HEADER)
        while raw := file.read(BLOCK):
            digest.update(raw)
    if digest.hexdigest() != header.sha256:
        raise _damaged(path, "its checksum is not the one in its header")


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    try:
        header = Header(**json.loads(raw))
    except (ValueError, TypeError):
        raise _damaged(path, "its header cannot be read") from None
    if header.format != FORMAT or header.version != VERSION:
        raise _damaged(path, f"it is {header.format!r} version {header.version}, not {FORMAT!r} version {VERSION}")
    if (size := path.stat().st_size) != (expected := HEADER + sum(header.sizes())):
        raise _damaged(path, f"it has {size} bytes, its header says {expected}")
    return header


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"Token shard {path} is damaged: {why}. Delete the folder {path.parent} and it is made again.")
