"""Words, BPE, WordPiece and loaded vocabularies, through HuggingFace's `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from ...core.errors import UserError
from .base import END, PAD, UNK, Ids, Tokenizer, leads

# The names under which known vocabularies hold the tokens that our layouts need.
END_NAMES = (END, "<|endoftext|>", "</s>", "<eos>", "[SEP]")


PAD_NAMES = (PAD, "<pad>", "<|pad|>")


UNK_NAMES = (UNK, "<unk>")


CHUNK = 1 << 15  # characters encoded at once: the engine's bookkeeping is about 50 bytes for each


# A word keeps the space before it, so that tokens joined are the text. Apostrophes and hyphens may be inside.
_WORD = r"[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*"


_UNMARK = decoders.Replace(Regex("^##"), "")


_WORDS = pre_tokenizers.Split(Regex(rf" ?{_WORD}| ?[^\s\p{{L}}\p{{M}}\p{{N}}_]|\s"), "isolated")


class Subwords(Tokenizer):
    """A tokenizer of `tokenizers`. Text that spells a special token is text: `[END]` never becomes the end token.

    Byte-level BPE round-trips any text. So do words and WordPiece trained here, but for what they lack ([UNK]).
    """

    def __init__(self, kind: str, engine: Engine, *, end: str | None = None, pad: str | None = None) -> None:
        if len(vocabulary := engine.get_vocab()) < 2:
            raise UserError(f"The tokenizer has {len(vocabulary)} tokens; its vocabulary is empty or was not found.")
        self.kind, self._engine, self._end, self._pad = kind, engine, end, pad
        engine.encode_special_tokens = True
        self.vocab_size = max(vocabulary.values()) + 1
        self.end_id = None if end is None else vocabulary[end]
        self.pad_id = None if pad is None else vocabulary[pad]
        self.unk_id = next((vocabulary[name] for name in UNK_NAMES if name in vocabulary), None)
        self._bytes = _byte_table(engine, self.vocab_size)  # of byte-level vocabularies
        if self._bytes is not None:
            self._begun = np.array([leads(raw).sum() for raw in self._bytes], dtype=np.int64)  # characters per token

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        chunks = list(_chunks(text))
        try:
            if self._bytes is not None:
                encodings = self._engine.encode_batch_fast(chunks, add_special_tokens=False)
                ids = np.array([i for encoding in encodings for i in encoding.ids], dtype=np.int64)
                return ids, self._begun[ids]
            encodings = self._engine.encode_batch(chunks, add_special_tokens=False)
        except Exception as error:  # the engine raises nothing more specific
            if self._engine.token_to_id(UNK) is None and (unseen := self._unseen(chunks)):
                more = f" and {len(unseen) - 8} more" if len(unseen) > 8 else ""
                raise UserError(
                    f"The vocabulary lacks {', '.join(map(repr, unseen[:8]))}{more}: "
                    "train with text that has them, or set text.unk=true when training."
                ) from None
            raise UserError(f"The tokenizer cannot encode this text: {error}.") from None
        ids, starts, before = [], [], 0
        for chunk, encoding in zip(chunks, encodings, strict=True):
            ids += encoding.ids
            starts += [before + start for start, _ in encoding.offsets]
            before += len(chunk)
        if ids:
            starts[0] = 0  # what comes before the first token is counted with it, what follows a token with that token
        return np.array(ids, dtype=np.int64), np.diff(np.array([*starts, before][: len(ids) + 1], dtype=np.int64))

    def _unseen(self, chunks: list[str]) -> list[str]:
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
        """From `to_dict`, or from the plain `tokenizer.json` of `tokenizers`. Raises UserError for neither."""
        ours = "tokenizer" in saved
        try:
            engine = Engine.from_str(json.dumps(saved["tokenizer"] if ours else saved))
        except Exception as error:  # the engine raises nothing more specific
            raise UserError(f"This is no tokenizer.json: {error}.") from None
        engine.no_padding()
        engine.no_truncation()
        return cls(saved.get("kind", "file"), engine, end=saved.get("end"), pad=saved.get("pad"))

    def with_specials(self, specials: Sequence[str]) -> Subwords:
        """With an end and a padding token where `specials` ask for them: known ones, else new ones."""
        if not specials:
            return self
        vocabulary = self._engine.get_vocab()
        end = next((name for name in END_NAMES if name in vocabulary), END)
        pad = next((name for name in PAD_NAMES if name in vocabulary), PAD)
        self._engine.add_special_tokens([end, pad])
        return Subwords(self.kind, self._engine, end=end, pad=pad)


def train_words(texts: Iterable[str], vocab_size: int, specials: Sequence[str], *, unk: bool) -> Subwords:
    """Words with the space before them, punctuation and line breaks; the most frequent, or all (`vocab_size` 0)."""
    if vocab_size and not unk:
        raise UserError(f"vocab_size={vocab_size} leaves words out, so tokenizer=words needs text.unk=true with it.")
    engine = Engine(models.WordLevel(unk_token=UNK))
    engine.pre_tokenizer, engine.decoder = _WORDS, decoders.Fuse()
    room = max(vocab_size - len(specials), 2) if vocab_size else 1 << 31
    trainer = trainers.WordLevelTrainer(vocab_size=room, special_tokens=[UNK] if unk else [], show_progress=False)
    engine.train_from_iterator(_all_chunks(texts), trainer)
    return Subwords("words", engine).with_specials(specials)


def train_bpe(texts: Iterable[str], vocab_size: int, specials: Sequence[str]) -> Subwords:
    """Byte-level BPE: 256 bytes, then merges; any text round-trips."""
    if vocab_size < 256 + len(specials):
        raise UserError(f"vocab_size is {vocab_size}; byte-level BPE begins with the 256 bytes (and end and padding).")
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
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
    """WordPiece on words that keep their space, so that tokens joined are the text; `##` marks the inside of a word.

    `alphabet` are the characters of the texts.
    """
    # The trainer numbers characters as they come out of a hash map and breaks ties by number: unless they are numbered
    # before, as special tokens are, each run learns other pieces.
    single = [UNK, *sorted(set(alphabet))]
    single += [f"##{character}" for character in single[1:] if not character.isspace()]
    room = vocab_size - len(specials)
    if room < len(single):
        raise UserError(f"vocab_size is {vocab_size}; the characters of this text alone need {len(single)} pieces.")
    engine = Engine(models.WordPiece(unk_token=UNK))
    engine.pre_tokenizer = _WORDS
    trainer = trainers.WordPieceTrainer(vocab_size=room, special_tokens=single, show_progress=False)
    engine.train_from_iterator(_all_chunks(texts), trainer)
    plain = Engine(models.WordPiece(engine.get_vocab(), unk_token=UNK))  # where no piece is special
    # No word begins with ##, since a punctuation mark is a word: only the marks are taken off.
    plain.pre_tokenizer, plain.decoder = _WORDS, decoders.Sequence([_UNMARK, decoders.Fuse()])
    return Subwords("wordpiece", plain).with_specials(specials)


def _byte_table(engine: Engine, vocab_size: int) -> list[np.ndarray] | None:
    """The bytes of each token of a byte-level vocabulary; None for others."""
    parts = json.loads(engine.to_str())
    before = parts.get("pre_tokenizer") or {}
    if before.get("type") != "ByteLevel" or before.get("add_prefix_space") or parts.get("normalizer"):
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
    """Parts of about `CHUNK` characters, cut after line breaks, or before a space where there is none."""
    start = 0
    while len(text) - start > CHUNK:
        end = start + CHUNK
        cut = text.rfind("\n", start, end) + 1 or text.rfind(" ", start + 1, end)
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut
    yield text[start:]
