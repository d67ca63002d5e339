"""The tokenizer interface, and the two tokenizers that need no library: characters and bytes."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from ...core.errors import UserError
from ...core.files import write_text
from ...core.hashing import json_hash
from .stand_ins import stand_in

END, PAD, UNK = "[END]", "[PAD]", "[UNK]"

Ids = np.ndarray  # int64, one dimension

_SURROGATES = re.compile("[\ud800-\udfff]")


class Tokenizer(ABC):
    """Text <-> token ids 0..vocab_size-1. A process may add ids of its own (a mask) after the vocabulary."""

    kind: str
    specials: tuple[str, ...] = ()
    vocab_size: int
    end_id: int | None
    pad_id: int | None
    unk_id: int | None
    """The token for anything outside the vocabulary; None if there is none, and other tokens stand in."""

    @abstractmethod
    def encode_counted(self, text: str) -> tuple[Ids, Ids | None]:
        """The ids, and how many characters each stands for, adding up to len(text). None: one character each.

        Of several tokens that only together make up characters, the first has them all. Any text is encoded: [UNK], or
        a token that stands in, replaces what the vocabulary lacks. Only where a vocabulary has no token for anything in
        a text, such as a blank one, are there no ids.
        """

    @abstractmethod
    def decode(self, ids: Collection[SupportsIndex]) -> str:
        """The text of `ids` up to the first end token, without padding."""

    def added_text(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What `ids` add to the text of the tokens `before`, with the spaces that decoding puts between them."""
        head, text = self.decode(before), self.decode([*before, *ids])
        return text[len(head) :] if text.startswith(head) else self.decode(ids)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The ids of the tokens that no text is encoded to, by name."""
        return self._special_tokens

    @abstractmethod
    def token_text(self, id: int) -> str:
        """One token as people should see it."""

    def token_bytes(self, id: int) -> bytes:
        """What one token adds to a text, in UTF-8; a character may be split over several tokens."""
        return self.decode([id]).encode()

    def to_dict(self) -> dict[str, Any]:
        """Everything that `loading.from_dict` needs, as JSON."""
        return {"kind": self.kind, "version": 1, "specials": list(self.specials)}

    def encode(self, text: str) -> Ids:
        """The ids of `text`, int64, without end or padding."""
        return self.encode_counted(text)[0]

    def encode_continuation(self, text: str) -> Ids:
        """The ids of `text` after other text: without the space that some tokenizers put before a text."""
        return self.encode(text)

    def save(self, path: str | Path) -> None:
        """Writes a human-readable JSON file, atomically."""
        write_text(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")

    def _add_specials(self, specials: Sequence[str], size: int, known: Mapping[str, int] | None = None) -> None:
        """Number the special tokens: those `known` to the vocabulary as there, the others after its `size` tokens."""
        ids = dict(known or {})
        self._size, self._added = size, [name for name in specials if name not in ids]
        ids |= {name: size + i for i, name in enumerate(self._added)}
        self._special_tokens = {name: ids[name] for name in specials}
        self.specials, self.vocab_size = tuple(specials), size + len(self._added)
        self.end_id, self.pad_id, self.unk_id = (ids[name] if name in specials else None for name in (END, PAD, UNK))

    def _content(self, ids: Collection[SupportsIndex]) -> Ids:
        """`ids` up to the first end token, without padding."""
        content = np.asarray(ids, dtype=np.int64).reshape(-1)
        if self.end_id is not None and (ends := np.flatnonzero(content == self.end_id)).size:
            content = content[: ends[0]]
        return content if self.pad_id is None else content[content != self.pad_id]


class Characters(Tokenizer):
    """One id per character of the text, in code point order; special tokens follow.

    `specials` may contain [END], [PAD] and [UNK]. Without [UNK], a similar known character stands in for an unknown one
    (é: e; —: -), because a model knows it, whereas it never saw an [UNK] in training.
    """

    kind = "characters"

    def __init__(self, characters: Iterable[str], specials: Sequence[str] = ()) -> None:
        self.characters = sorted(set(characters))
        self._add_specials(specials, len(self.characters))
        self._points = code_points("".join(self.characters))
        # The last entry stands for all code points beyond the largest known one.
        self._id_of = np.full(int(self._points.max(initial=0)) + 2, -1, dtype=np.int32)
        self._id_of[self._points] = np.arange(len(self._points))
        # The only special token that `decode` shows is [UNK], as the replacement character.
        self._point_of = np.concatenate([self._points, np.full(len(self.specials), 0xFFFD, dtype=np.uint32)])

    def encode_counted(self, text: str) -> tuple[Ids, None]:
        points = code_points(well_formed(text))
        ids = self._id_of[np.minimum(points, len(self._id_of) - 1)].astype(np.int64)
        for point in np.unique(points[ids < 0]).tolist():
            ids[points == point] = self._unknown_id(chr(point))
        return ids, None

    def _unknown_id(self, character: str) -> int:
        if self.unk_id is not None:
            return self.unk_id
        if not self.characters:
            raise UserError("The tokenizer has no characters, so it cannot encode any text.")
        return int(self._id_of[ord(stand_in(character, self.characters))])

    def decode(self, ids: Collection[SupportsIndex]) -> str:
        return self._point_of[self._content(ids)].astype("<u4").tobytes().decode("utf-32-le")

    def token_text(self, id: int) -> str:
        return self.characters[id] if id < len(self.characters) else self.specials[id - len(self.characters)]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"characters": self.characters}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Characters:
        """The inverse of `to_dict`."""
        return cls(saved["characters"], saved["specials"])


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8; special tokens follow. Invalid UTF-8 decodes to the replacement character."""

    kind = "bytes"

    def __init__(self, specials: Sequence[str] = ()) -> None:
        self._add_specials(specials, 256)

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        raw = np.frombuffer(well_formed(text).encode("utf-8"), dtype=np.uint8)
        return raw.astype(np.int64), starts_character(raw).astype(np.int64)

    def decode(self, ids: Collection[SupportsIndex]) -> str:
        return self._content(ids).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def token_text(self, id: int) -> str:
        if id >= 256:
            return self.specials[id - 256]
        return chr(id) if id < 128 else f"\\x{id:02x}"

    def token_bytes(self, id: int) -> bytes:
        return bytes([id]) if id < 256 else b""

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Bytes:
        """The inverse of `to_dict`."""
        return cls(saved["specials"])


def fingerprint(tokenizer: Tokenizer) -> str:
    """A short hash of everything that defines the tokenizer."""
    return json_hash(tokenizer.to_dict())


def well_formed(text: str) -> str:
    """`text` with the replacement character for every lone surrogate, which no encoding of Unicode allows."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def starts_character(raw: np.ndarray) -> np.ndarray:
    """Which bytes of UTF-8 (uint8) are the first of a character; bool, same shape."""
    return (raw & 0xC0) != 0x80


def code_points(text: str) -> np.ndarray:
    """The code points of the characters, uint32."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
