"""SentencePiece vocabularies, learned or loaded, with sampled segmentations for training."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np

from ...core.errors import UserError
from .base import END, PAD, Ids, Tokenizer, starts_character, well_formed
from .spans import char_counts, find_pieces
from .unigram import sample_segmentation

_EMPTY = np.zeros(0, dtype=np.int64)
_MAX_SENTENCE = 1000  # characters; the trainer skips sentences of more than 4192 bytes
_UNKNOWN_PENALTY = 10.0  # nats below the least likely piece, as in the library


class SentencePiece(Tokenizer):
    """A SentencePiece model; special tokens that it lacks follow its own pieces.

    Models learned here round-trip any text except U+2581, which SentencePiece reads as a space. What a loaded model
    loses, `losses.measure_loss` finds.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, specials: Sequence[str] = ()) -> None:
        library = _library()
        try:
            self._processor = library.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"This is not a SentencePiece model: {error}.") from None
        self._model = model
        self._num_pieces = self._processor.get_piece_size()
        model_ids = {END: self._processor.eos_id(), PAD: self._processor.pad_id()}
        self._add_specials(specials, self._num_pieces, {name: id for name, id in model_ids.items() if id >= 0})
        self.unk_id = self._processor.unk_id()
        self._char_counts = np.array([self._char_count(i) for i in range(self._num_pieces)], dtype=np.int64)
        # Lines are encoded one by one, unless something is lost then, as by a model that puts a space before each.
        example = "a\nb c"
        separate = self._processor.decode([i for ids in self._processor.encode(_lines(example)) for i in ids])
        together = self._processor.decode(self._processor.encode(example))
        self._by_line = separate == example or together != example
        first = self._processor.encode("a")
        self._adds_prefix = bool(first) and self._processor.id_to_piece(first[0]).startswith("\u2581")

    def _char_count(self, id: int) -> int:
        if self._processor.is_byte(id):
            return int(starts_character(np.frombuffer(self._byte(id), dtype=np.uint8))[0])
        return 0 if self._processor.is_control(id) else len(self._processor.id_to_piece(id))

    def _byte(self, id: int) -> bytes:
        """The byte of a piece such as <0xE9>."""
        return bytes([int(self._processor.id_to_piece(id)[3:5], 16)])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = ()) -> SentencePiece:
        """A unigram model with byte fallback and no normalisation. Raises UserError for an impossible `vocab_size`."""
        library = _library()
        model = io.BytesIO()
        lines = (line for text in texts for line in text.split("\n") if line)
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=_sentences(lines),
                model_writer=model,
                vocab_size=vocab_size - len(specials),
                model_type="unigram",
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                hard_vocab_limit=False,
                user_defined_symbols=["\n"],
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                input_sentence_size=1_000_000,
                shuffle_input_sentence=False,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"SentencePiece could not learn {vocab_size} pieces: {error}.") from None
        return cls(model.getvalue(), specials)

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        text = well_formed(text)
        parts = _lines(text) if self._by_line else _chunks(text)
        ids, counts = [_EMPTY], [_EMPTY]
        pending = 0  # characters without a piece, such as a blank line that the model drops
        for part, pieces in zip(parts, self._processor.encode(parts), strict=True):
            part_ids = np.array(pieces, dtype=np.int64)
            part_counts = self._char_counts[part_ids]
            if part_counts.sum() != len(part):
                texts = [self._piece_bytes(i) for i in pieces]
                if self._adds_prefix:
                    texts[:1] = [texts[0].removeprefix(b" ")] if texts else []
                part_counts = char_counts(find_pieces(part, texts), len(part))
            if not len(part_ids):
                pending += len(part)
                continue
            part_counts[0] += pending
            pending = 0
            ids.append(part_ids)
            counts.append(part_counts)
        joined_ids, joined_counts = np.concatenate(ids), np.concatenate(counts)
        if len(joined_ids):
            joined_counts[np.flatnonzero(joined_counts)[-1:]] += pending
        return joined_ids, joined_counts

    def _piece_bytes(self, id: int) -> bytes:
        if self._processor.is_byte(id):
            return self._byte(id)
        return b"" if self._processor.is_unknown(id) else self.token_text(id).encode()

    def encode_continuation(self, text: str) -> Ids:
        if not (self._adds_prefix and text):
            return self.encode(text)
        # Only a text's first piece has the added space, so a mark before it keeps that away.
        for mark in (".", "\n", "!"):
            before, ids = self._processor.encode(mark), self.encode(mark + text)
            if ids[: len(before)].tolist() == before:
                return ids[len(before) :]
        return self.encode(text)

    @cached_property
    def log_probs(self) -> dict[str, float]:
        """Log-probabilities of the pieces of a unigram model; empty for models of another type, such as BPE."""
        processor = self._processor
        try:
            processor.nbest_encode("a", nbest_size=1)
        except RuntimeError:
            return {}
        special = (processor.is_control, processor.is_unknown, processor.is_unused, processor.is_byte)
        ids = [i for i in range(self._num_pieces) if not any(is_special(i) for is_special in special)]
        return {processor.id_to_piece(i): processor.get_score(i) for i in ids}

    def encode_sampled(self, text: str, *, alpha: float, seed: int) -> Ids:
        """A segmentation sampled with probability proportional to p(segmentation)^alpha under a unigram model.

        The seed determines it in every process, which the library's own sampling does not offer.
        """
        rng, log_probs = random.Random(seed), self.log_probs
        unknown = min(log_probs.values()) - _UNKNOWN_PENALTY
        ids: list[int] = []
        for line in map(self._processor.normalize, _lines(text)):
            for piece in sample_segmentation(line, log_probs, unknown, alpha, rng):
                ids += [self._processor.piece_to_id(piece)] if piece in log_probs else self._unknown_ids(piece)
        return np.array(ids, dtype=np.int64)

    def _unknown_ids(self, character: str) -> list[int]:
        """The bytes of a character without a piece; [UNK] if the model has no bytes."""
        ids = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in character.encode()]
        return ids if all(map(self._processor.is_byte, ids)) else [self._processor.unk_id()]

    def resegment(self, ids: np.ndarray, alpha: float, seed: int) -> Ids:
        """A sampled segmentation of the text of `ids`, with its end token if there was one."""
        sampled = self.encode_sampled(self.decode(ids), alpha=alpha, seed=seed)
        has_end = self.end_id is not None and self.end_id in ids
        return np.concatenate([sampled, ids[-1:]]) if has_end else sampled

    def decode(self, ids: Collection[SupportsIndex]) -> str:
        return self._processor.decode(self._content(ids).tolist())

    def token_text(self, id: int) -> str:
        if id >= self._num_pieces:
            return self._added[id - self._num_pieces]
        return self._processor.id_to_piece(id).replace("\u2581", " ")

    def token_bytes(self, id: int) -> bytes:
        is_byte = id < self._num_pieces and self._processor.is_byte(id)
        return self._byte(id) if is_byte else self.token_text(id).encode()

    def to_dict(self) -> dict[str, Any]:
        """The model, and its pieces for people to read."""
        pieces = [self._processor.id_to_piece(i) for i in range(self._num_pieces)]
        model = base64.b64encode(self._model).decode()
        return super().to_dict() | {"pieces": pieces, "model": model}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SentencePiece:
        """The inverse of `to_dict`."""
        return cls(base64.b64decode(saved["model"]), saved["specials"])


def _sentences(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        for start in range(0, len(line), _MAX_SENTENCE):
            yield line[start : start + _MAX_SENTENCE]


def _chunks(text: str) -> list[str]:
    """Lines joined to parts of about `_MAX_SENTENCE` characters or more."""
    parts = [""]
    for line in _lines(text):
        if len(parts[-1]) >= _MAX_SENTENCE:
            parts.append("")
        parts[-1] += line
    return parts


def _lines(text: str) -> list[str]:
    """Lines with their line breaks; str.splitlines would also split at other characters."""
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])


def _library() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError("SentencePiece is an extra: pip install 'textdiffusion[sentencepiece]'.") from None
    return sentencepiece
