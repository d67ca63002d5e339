"""Words, BPE, WordPiece and loaded vocabularies, through HuggingFace's `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from ...core.errors import UserError
from .base import END, PAD, UNK, Ids, Tokenizer, starts_character, well_formed
from .spans import byte_table, char_counts, find_pieces

# Names of the special tokens in well-known vocabularies.
END_NAMES = (END, "<|endoftext|>", "</s>", "<eos>", "[SEP]")
PAD_NAMES = (PAD, "<pad>", "<|pad|>")
UNK_NAMES = (UNK, "<unk>")

MAX_VOCABULARY = 1 << 24
MAX_LEARNED = 1 << 26
"""Characters that subwords are learned from: the engine remembers every distinct word, at 0.5 to 1 kB each."""
CHUNK = 1 << 15  # characters encoded at once: the engine needs about 50 bytes for each

# A word includes the space before it, so that joined tokens are the text. It may contain apostrophes and hyphens.
_WORD = r"[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*"
_WORDS = pre_tokenizers.Split(Regex(rf" ?{_WORD}| ?[^\s\p{{L}}\p{{M}}\p{{N}}_]|\s"), "isolated")
_STRIP_PREFIX = decoders.Replace(Regex("^##"), "")
# The engine reads no longer word; the parts of one begin without ##, which joined tokens do not show.
_MAX_WORD = 100
_WORD_PARTS = pre_tokenizers.Sequence([_WORDS, pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{_MAX_WORD}}}"), "isolated")])


class Subwords(Tokenizer):
    """A tokenizer of `tokenizers`. Text that spells a special token stays text: `[END]` never becomes the end token.

    Byte-level BPE round-trips any text; words and WordPiece learned here round-trip all but unknown words ([UNK]). What
    a loaded vocabulary loses, `losses.measure_loss` finds.
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
        self._bytes = byte_table(engine, self.vocab_size)
        if self._bytes is not None:
            self._char_counts = np.array(
                [starts_character(np.frombuffer(raw, dtype=np.uint8)).sum() for raw in self._bytes], dtype=np.int64
            )
        first = self._ids_of("a")
        self._adds_space = self._decoded(first) == " a"  # before a text, and decoding leaves it there
        self._adds_prefix = (
            self._adds_space or (engine.id_to_token(first[0]) or "").startswith("\u2581") if first else False
        )

    def _ids_of(self, text: str) -> list[int]:
        """The ids of a short text; none if the engine has no token for some of it."""
        try:
            return self._engine.encode(text, add_special_tokens=False).ids
        except Exception:  # the engine raises nothing more specific
            return []

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        chunks = list(_chunks(well_formed(text)))
        if self._bytes is not None and (of_bytes := self._encode_bytes(chunks)):
            return of_bytes
        try:
            encodings = self._engine.encode_batch(chunks, add_special_tokens=False)
        except Exception:  # the engine raises nothing more specific where a vocabulary without [UNK] lacks a token
            ids, offsets = self._encode_known("".join(chunks))
        else:
            ids, offsets, offset = [], [], 0
            for chunk, encoding in zip(chunks, encodings, strict=True):
                ids += encoding.ids
                offsets += [(offset + start, offset + end) for start, end in encoding.offsets]
                offset += len(chunk)
            if self.unk_id is None and self._decoded(ids) != text:
                # The engine's offsets do not count the characters for which a vocabulary without [UNK] has no token.
                offsets = find_pieces(text, [self.token_bytes(i) for i in ids])
        return np.array(ids, dtype=np.int64), char_counts(offsets, len(text))

    def _encode_bytes(self, chunks: list[str]) -> tuple[Ids, Ids] | None:
        """The ids of a byte-level vocabulary, and their characters by their bytes; None if these are not the text's."""
        assert self._bytes is not None
        encodings = self._engine.encode_batch_fast(chunks, add_special_tokens=False)
        ids, counts = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for chunk, encoding in zip(chunks, encodings, strict=True):
            raw, joined = chunk.encode(), b"".join([self._bytes[i] for i in encoding.ids])
            has_space = self._adds_space and joined == b" " + raw
            if joined != raw and not has_space:
                return None
            ids.append(np.array(encoding.ids, dtype=np.int64))
            counts.append(self._char_counts[ids[-1]])
            if has_space:
                counts[-1][0] -= 1
        return np.concatenate(ids), np.concatenate(counts)

    def _encode_known(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets word by word, for a vocabulary without [UNK]: another token stands in for an unknown word."""
        pre_tokenizer = self._engine.pre_tokenizer
        words = [(c, (i, i + 1)) for i, c in enumerate(text)]
        if pre_tokenizer is not None:
            words = pre_tokenizer.pre_tokenize_str(text)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        stand_in = next((i for mark in (".", " .", "\n", " ") for i in self._ids_of(mark)), 0)
        known: dict[str, list[int]] = {}
        for word, offset in words:
            if word not in known:
                known[word] = self._ids_of(text[slice(*offset)]) or [stand_in]
            ids += known[word]
            offsets += [offset] * len(known[word])
        return ids, offsets

    def encode_continuation(self, text: str) -> Ids:
        if not (self._adds_prefix and text):
            return self.encode(text)
        # Only a text's first token has the added space, so a mark before it keeps that away.
        for mark in (".", "\n", "!"):
            encoding = self._engine.encode(mark + well_formed(text), add_special_tokens=False)
            after = [i for i, (start, _) in zip(encoding.ids, encoding.offsets, strict=True) if start >= len(mark)]
            if after == encoding.ids[len(self._ids_of(mark)) :]:
                return np.array(after, dtype=np.int64)
        return self.encode(text)

    def decode(self, ids: Collection[SupportsIndex]) -> str:
        text = self._decoded(self._content(ids).tolist())
        return text.removeprefix(" ") if self._adds_space else text

    def _decoded(self, ids: list[int]) -> str:
        return self._engine.decode(ids, skip_special_tokens=False)

    def token_text(self, id: int) -> str:
        if self._bytes is not None and id not in (self.end_id, self.pad_id):
            return self._bytes[id].decode("utf-8", "backslashreplace")
        return self._engine.id_to_token(id) or ""

    def token_bytes(self, id: int) -> bytes:
        return super().token_bytes(id) if self._bytes is None else self._bytes[id]

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return {token.content: id for id, token in self._engine.get_added_tokens_decoder().items() if token.special}

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

    @property
    def vocabulary(self) -> dict[str, int]:
        """The ids of all tokens, special ones included, by their names."""
        return self._engine.get_vocab()

    def token_id(self, name: str) -> int | None:
        """The id of a token by its name (None: there is none)."""
        return self._engine.token_to_id(name)

    def with_named_specials(self, end: str | None, pad: str | None) -> Subwords:
        """The same vocabulary, with these of its tokens as the end and the padding."""
        return Subwords(self.kind, self._engine, end=end, pad=pad)

    def with_specials(self, specials: Sequence[str]) -> Subwords:
        """With an end and a padding token if `specials` are needed: existing ones, else new ones."""
        if not specials:
            return self
        vocabulary = self._engine.get_vocab()
        end = next((name for name in END_NAMES if name in vocabulary), END)
        pad = next((name for name in PAD_NAMES if name in vocabulary), PAD)
        self._engine.add_special_tokens([end, pad])
        return Subwords(self.kind, self._engine, end=end, pad=pad)


def train_words(texts: Iterable[str], vocab_size: int, specials: Sequence[str]) -> Subwords:
    """The most frequent words, punctuation marks and line breaks, or all of them (`vocab_size` 0), and [UNK]."""
    engine = Engine(models.WordLevel(unk_token=UNK))
    engine.pre_tokenizer, engine.decoder = _WORDS, decoders.Fuse()
    size = max(vocab_size - len(specials), 2) if vocab_size else 1 << 31
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=[UNK], show_progress=False)
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
    engine.train_from_iterator(even_sample(_all_chunks(texts)), trainer)
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
    engine.pre_tokenizer = _WORD_PARTS
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=characters, show_progress=False)
    engine.train_from_iterator(even_sample(_all_chunks(texts)), trainer)
    plain = Engine(models.WordPiece(engine.get_vocab(), unk_token=UNK))  # without special tokens
    # No word begins with ##, since a punctuation mark is a word, so only the prefixes are removed.
    plain.pre_tokenizer, plain.decoder = _WORD_PARTS, decoders.Sequence([_STRIP_PREFIX, decoders.Fuse()])
    return Subwords("wordpiece", plain).with_specials(specials)


def even_sample(chunks: Iterable[str], limit: int = MAX_LEARNED) -> list[str]:
    """Chunks that are spread evenly over a stream of unknown length, together at most `limit` characters.

    All of them if they fit; else the first of every 2, 4, 8, ... chunks, each of which is at most `limit` long.
    """
    kept: list[str] = []
    size, step = 0, 1
    for number, chunk in enumerate(chunks):
        if number % step:
            continue
        kept.append(chunk)
        size += len(chunk)
        while size > limit:
            kept, step = kept[::2], 2 * step
            size = sum(map(len, kept))
    return kept


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
