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
from .base import END, PAD, Ids, Tokenizer, starts_character
from .unigram import sample_segmentation

_EMPTY = np.zeros(0, dtype=np.int64)
_MAX_SENTENCE = 1000  # characters; the trainer skips sentences of more than 4192 bytes
_UNKNOWN_PENALTY = 10.0  # nats below the least likely piece, as in the library


class SentencePiece(Tokenizer):
    """A SentencePiece model; special tokens that it lacks follow its own pieces.

    Models learned here round-trip any text except U+2581, which SentencePiece reads as a space.
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
        lines = _lines(text)
        ids, char_counts = [_EMPTY], [_EMPTY]
        for line, pieces in zip(lines, self._processor.encode(lines), strict=True):
            line_ids = np.array(pieces, dtype=np.int64)
            counts = self._char_counts[line_ids]
            if line_ids.size and (missing := len(line) - int(counts.sum())):
                # A loaded model may add a space or merge some; the first pieces absorb the difference.
                ends = np.cumsum(counts) + min(missing, 0)
                counts = np.diff(np.maximum(ends, 0), prepend=0)
                counts[0] += max(missing, 0)
            ids.append(line_ids)
            char_counts.append(counts)
        return np.concatenate(ids), np.concatenate(char_counts)

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
