"""Memory-mapped token shards: a JSON header a person can read, then raw arrays.

A shard is one file. Its first 4096 bytes are JSON padded with spaces. Then come the tokens, the number of characters of
each token (unless it is one for all), the position where each example starts (if the text consists of separate ones),
and the positions and bits of the tokens whose characters the tokenizer lost (see `tokenizers.losses`).
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
VERSION = 2
HEADER = 4096
BLOCK = 1 << 22  # bytes read at a time


@dataclass(frozen=True)
class Header:
    """The first 4096 bytes. `dtype` and `chars_dtype` are numpy names; `sha256` covers everything after the header."""

    format: str
    version: int
    dtype: str
    tokens: int
    chars: int
    chars_dtype: str | None
    examples: int | None
    lost: int
    sha256: str

    def layout(self) -> list[tuple[str, int, int]]:
        """Dtype, length and bytes of tokens, character counts and starts; an absent one has length 0.

        The bytes are rounded up to a multiple of 8.
        """
        arrays = [
            (self.dtype, self.tokens),
            (self.chars_dtype or "uint8", self.tokens if self.chars_dtype else 0),
            ("int64", 0 if self.examples is None else self.examples + 1),
            ("int64", self.lost),
            ("float32", self.lost),
        ]
        return [(dtype, count, -(-count * np.dtype(dtype).itemsize // 8) * 8) for dtype, count in arrays]


@dataclass(frozen=True)
class Shard:
    """An open shard. `char_counts` is None if every token is one character, `starts` is None for a stream.

    Example i is `tokens[starts[i]:starts[i + 1]]`. The token at `lost_positions[i]` costs `lost_bits[i]` in addition.
    """

    path: Path
    header: Header
    tokens: np.ndarray
    char_counts: np.ndarray | None
    starts: np.ndarray | None
    lost_positions: np.ndarray
    lost_bits: np.ndarray

    def __len__(self) -> int:
        return self.header.tokens

    def lost_bits_at(self, positions: np.ndarray) -> np.ndarray:
        """The bits that tokens cost in addition to the model's, float64, in the shape of `positions`."""
        if not len(self.lost_positions):
            return np.zeros(positions.shape)
        index = np.minimum(np.searchsorted(self.lost_positions, positions), len(self.lost_positions) - 1)
        return np.where(self.lost_positions[index] == positions, self.lost_bits[index], 0.0)


class ShardWriter:
    """Writes a shard chunk by chunk; memory is one chunk plus 8 bytes per example. A context manager."""

    def __init__(self, path: Path, vocab_size: int, *, examples: bool) -> None:
        self.path = path
        self.dtype = np.min_scalar_type(max(vocab_size - 1, 0))
        self._starts = array("q", [0]) if examples else None
        self._lost_positions, self._lost_bits = array("q"), array("f")
        self._tokens = self._chars = self._max_count = 0
        self._hash = hashlib.sha256()
        self._file = path.open("w+b")
        self._file.write(b" " * HEADER)
        # The counts follow all tokens, so they wait in a file of their own.
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

    def write(self, tokens: np.ndarray, char_counts: np.ndarray | None, lost_bits: np.ndarray | None = None) -> None:
        """Append tokens, the number of characters of each (None: one each), and its lost bits (None: 0 each)."""
        if lost_bits is not None:
            lost = np.flatnonzero(lost_bits)
            self._lost_positions.extend((lost + self._tokens).tolist())
            self._lost_bits.extend(lost_bits[lost].tolist())
        if self._counted is None and len(tokens):
            self._counted = char_counts is not None
        assert not len(tokens) or self._counted == (char_counts is not None)
        self._append(tokens.astype(self.dtype).tobytes())
        self._tokens += len(tokens)
        if char_counts is None:
            self._chars += len(tokens)
        else:
            self._chars += int(char_counts.sum())
            self._max_count = max(self._max_count, int(char_counts.max(initial=0)))
            self._counts.write(char_counts.astype(np.uint32).tobytes())

    def end_example(self) -> None:
        """Make the tokens written since the last call one example."""
        assert self._starts is not None
        self._starts.append(self._tokens)

    def _append(self, raw: bytes) -> None:
        self._hash.update(raw)
        self._file.write(raw)

    def _align(self) -> None:
        self._append(bytes(-self._file.tell() % 8))

    def _finish(self) -> None:
        self._align()
        self._counts.seek(0)
        chars_dtype = np.min_scalar_type(max(self._max_count, 256))  # at least uint16
        while raw := self._counts.read(BLOCK):
            self._append(np.frombuffer(raw, dtype=np.uint32).astype(chars_dtype).tobytes())
        self._align()
        if self._starts is not None:
            self._append(self._starts.tobytes())
        for values in (self._lost_positions, self._lost_bits):
            self._append(values.tobytes())
            self._align()
        header = Header(
            format=FORMAT,
            version=VERSION,
            dtype=self.dtype.name,
            tokens=self._tokens,
            chars=self._chars,
            chars_dtype=chars_dtype.name if self._counted else None,
            examples=None if self._starts is None else len(self._starts) - 1,
            lost=len(self._lost_positions),
            sha256=self._hash.hexdigest(),
        )
        self._file.seek(0)
        self._file.write(json.dumps(asdict(header), indent=1).encode().ljust(HEADER - 1) + b"\n")


def open_shard(path: Path) -> Shard:
    """Map a shard. Raises UserError if it is missing, is not a shard, or is not as long as its header says."""
    header = _read_header(path)
    raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # a plain array: np.memmap's own indexing is slow
    arrays, offset = [], HEADER
    for dtype, count, size in header.layout():
        arrays.append(raw[offset : offset + count * np.dtype(dtype).itemsize].view(dtype))
        offset += size
    tokens, char_counts, starts, lost_positions, lost_bits = arrays
    has_counts, has_examples = header.chars_dtype is not None, header.examples is not None
    char_counts, starts = char_counts if has_counts else None, starts if has_examples else None
    return Shard(path, header, tokens, char_counts, starts, lost_positions, lost_bits)


def verify(path: Path) -> None:
    """Compare the checksum of a shard with its content. Raises UserError if the shard is damaged."""
    header = _read_header(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(HEADER)
        while raw := file.read(BLOCK):
            digest.update(raw)
    if digest.hexdigest() != header.sha256:
        raise _damaged(path, "its checksum differs from the one in its header")


def _read_header(path: Path) -> Header:
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
    if (size := path.stat().st_size) != (expected := HEADER + sum(size for *_, size in header.layout())):
        raise _damaged(path, f"it has {size} bytes, but its header says {expected}")
    return header


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"Token shard {path} is damaged: {reason}. Delete the folder {path.parent} to rebuild it.")
