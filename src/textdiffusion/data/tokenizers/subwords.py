"""Words, BPE, WordPiece and loaded vocabularies, through HuggingFace's `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from ...core.errors import UserError
from .base import END, PAD, UNK, Ids, Tokenizer, starts_character

# Names of the special tokens in well-known vocabularies.
END_NAMES = (END, "<|endoftext|>", "</s>", "<eos>", "[SEP]")
PAD_NAMES = (PAD, "<pad>", "<|pad|>")
UNK_NAMES = (UNK, "<unk>")

MAX_VOCABULARY = 1 << 24
CHUNK = 1 << 15  # characters encoded at once: the engine needs about 50 bytes for each

# A word includes the space before it, so that joined tokens are the text. It may contain apostrophes and hyphens.
_WORD = r"[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*"
_WORDS = pre_tokenizers.Split(Regex(rf" ?{_WORD}| ?[^\s\p{{L}}\p{{M}}\p{{N}}_]|\s"), "isolated")
_STRIP_PREFIX = decoders.Replace(Regex("^##"), "")


class Subwords(Tokenizer):
    """A tokenizer of `tokenizers`. Text that spells a special token stays text: `[END]` never becomes the end token.

    Byte-level BPE round-trips any text; words and WordPiece learned here round-trip all but unknown words ([UNK]).
    """

    def __init__(self, kind: str, engine: Engine, *, end: str | None = None, pad: str | None = None) -> None:
        if len(vocabulary := engine.get_vocab()) < 2:
            raise UserError(f"The tokenizer has {len(vocabulary)} tokens: its vocabulary is empty or was not found.")
        self.kind, self._engine, self._end, self._pad = kind, engine, end, pad
        engine.encode_special_tokens = True
        self.vocab_size = max(vocabulary.values()) + 1
        if self.vocab_size > MAX_VOCABULARY:
            raise UserError(f"A token has the id {self.vocab_size - 1:,}; it must be below {MAX_VOCABULARY:,}.")
        self.end_id = None if end is None else vocabulary[end]
        self.pad_id = None if pad is None else vocabulary[pad]
        self.unk_id = next((vocabulary[name] for name in UNK_NAMES if name in vocabulary), None)
        self._bytes = _byte_table(engine, self.vocab_size)  # of byte-level vocabularies
        if self._bytes is not None:
            self._char_counts = np.array([starts_character(raw).sum() for raw in self._bytes], dtype=np.int64)

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        chunks = list(_chunks(text))
        try:
            if self._bytes is not None:
                encodings = self._engine.encode_batch_fast(chunks, add_special_tokens=False)
                ids = np.array([i for encoding in encodings for i in encoding.ids], dtype=np.int64)
                return ids, self._char_counts[ids]
            encodings = self._engine.encode_batch(chunks, add_special_tokens=False)
        except Exception as error:  # the engine raises nothing more specific
            if self._engine.token_to_id(UNK) is None and (unknown := self._unknown_words(chunks)):
                more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
                raise UserError(
                    f"The vocabulary lacks {', '.join(map(repr, unknown[:8]))}{more}. "
                    "Train with text that has them, or set text.unk=true when training."
                ) from None
            raise UserError(f"The tokenizer cannot encode this text: {error}.") from None
        ids, starts, offset = [], [], 0
        for chunk, encoding in zip(chunks, encodings, strict=True):
            ids += encoding.ids
            starts += [offset + start for start, _ in encoding.offsets]
            offset += len(chunk)
        if ids:
            starts[0] = 0  # text before the first token counts with it; text after a token counts with that token
        return np.array(ids, dtype=np.int64), np.diff(np.array([*starts, offset][: len(ids) + 1], dtype=np.int64))

    def _unknown_words(self, chunks: list[str]) -> list[str]:
        assert self._engine.pre_tokenizer is not None
        words = (word for chunk in chunks for word, _ in self._engine.pre_tokenizer.pre_tokenize_str(chunk))
        return [word for word in dict.fromkeys(words) if self._engine.token_to_id(word) is None]

    def decode(self, ids: Collection[SupportsIndex]) -> str:
        return self._engine.decode(self._content(ids).tolist(), skip_special_tokens=False)

    def token_text(self, id: int) -> str:
        if self._bytes is not None and id not in (self.end_id, self.pad_id):
            return self._bytes[id].tobytes().decode("utf-8", "backslashreplace")
        return self._engine.id_to_token(id) or ""

    def token_bytes(self, id: int) -> bytes:
        return super().token_bytes(id) if self._bytes is None else self._bytes[id].tobytes()

    def to_dict(self) -> dict[str, Any]:
        engine = json.loads(self._engine.to_str())
        return {"kind": self.kind, "version": 1, "end": self._end, "pad": self._pad, "tokenizer": engine}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Subwords:
        """From `to_dict`, or from the plain tokenizer.json of `tokenizers`. Raises UserError if it is neither."""
        try:
            engine = Engine.from_str(json.dumps(saved.get("tokenizer", saved)))
        except Exception as error:  # the engine raises nothing more specific
            raise UserError(f"This is not a tokenizer file: {error}.") from None
        engine.no_padding()
        engine.no_truncation()
        return cls(saved.get("kind", "file"), engine, end=saved.get("end"), pad=saved.get("pad"))

    def with_specials(self, specials: Sequence[str]) -> Subwords:
        """With an end and a padding token if `specials` are needed: existing ones, else new ones."""
        if not specials:
            return self
        vocabulary = self._engine.get_vocab()
        end = next((name for name in END_NAMES if name in vocabulary), END)
        pad = next((name for name in PAD_NAMES if name in vocabulary), PAD)
        self._engine.add_special_tokens([end, pad])
        return Subwords(self.kind, self._engine, end=end, pad=pad)


def train_words(texts: Iterable[str], vocab_size: int, specials: Sequence[str], *, unk: bool) -> Subwords:
    """The most frequent words, punctuation marks and line breaks, or all of them (`vocab_size` 0)."""
    if vocab_size and not unk:
        raise UserError(f"vocab_size={vocab_size} leaves words out, so tokenizer=words also needs text.unk=true.")
    engine = Engine(models.WordLevel(unk_token=UNK))
    engine.pre_tokenizer, engine.decoder = _WORDS, decoders.Fuse()
    size = max(vocab_size - len(specials), 2) if vocab_size else 1 << 31
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=[UNK] if unk else [], show_progress=False)
    engine.train_from_iterator(_all_chunks(texts), trainer)
    return Subwords("words", engine).with_specials(specials)


def byte_level(model: models.BPE) -> Engine:
    """A tokenizer that applies the model to bytes."""
    engine = Engine(model)
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return engine


def train_bpe(texts: Iterable[str], vocab_size: int, specials: Sequence[str]) -> Subwords:
    """Byte-level BPE: 256 bytes, then merges; any text round-trips."""
    if vocab_size < (least := 256 + len(specials)):
        raise UserError(f"vocab_size is {vocab_size}; byte-level BPE needs at least {least}.")
    engine = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(_all_chunks(texts), trainer)
    return Subwords("bpe", engine).with_specials(specials)


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, specials: Sequence[str], alphabet: Iterable[str]
) -> Subwords:
    """WordPiece on words with the space before them, so that joined tokens are the text; `##` continues a word.

    `alphabet` contains the characters of the texts.
    """
    # The trainer numbers characters in the order of a hash map and breaks ties by number. Numbering them beforehand, as
    # special tokens, makes learning deterministic.
    characters = [UNK, *sorted(set(alphabet))]
    characters += [f"##{character}" for character in characters[1:] if not character.isspace()]
    size = vocab_size - len(specials)
    if size < len(characters):
        raise UserError(f"vocab_size is {vocab_size}; the characters of this text alone need {len(characters)} pieces.")
    engine = Engine(models.WordPiece(unk_token=UNK))
    engine.pre_tokenizer = _WORDS
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=characters, show_progress=False)
    engine.train_from_iterator(_all_chunks(texts), trainer)
    plain = Engine(models.WordPiece(engine.get_vocab(), unk_token=UNK))  # without special tokens
    # No word begins with ##, since a punctuation mark is a word, so only the prefixes are removed.
    plain.pre_tokenizer, plain.decoder = _WORDS, decoders.Sequence([_STRIP_PREFIX, decoders.Fuse()])
    return Subwords("wordpiece", plain).with_specials(specials)


def _byte_table(engine: Engine, vocab_size: int) -> list[np.ndarray] | None:
    """The bytes of each token of a byte-level vocabulary; None for others."""
    parts = json.loads(engine.to_str())
    pre_tokenizer = parts.get("pre_tokenizer") or {}
    if pre_tokenizer.get("type") != "ByteLevel" or pre_tokenizer.get("add_prefix_space") or parts.get("normalizer"):
        return None
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    table = [np.zeros(0, dtype=np.uint8)] * vocab_size
    for token, id in engine.get_vocab().items():
        table[id] = np.array([byte_of[c] for c in token if c in byte_of], dtype=np.uint8)
    return table


def _all_chunks(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _chunks(text)


def _chunks(text: str) -> Iterator[str]:
    """Chunks of at most `CHUNK` characters, cut after line breaks, or before a space if there is none."""
    start = 0
    while len(text) - start > CHUNK:
        end = start + CHUNK
        cut = text.rfind("\n", start, end) + 1 or text.rfind(" ", start + 1, end)
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut
    yield text[start:]
