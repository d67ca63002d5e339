"""SentencePiece vocabularies: trained here or loaded, with segmentations drawn at random while training."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from ...core.errors import UserError
from .base import END, PAD, Ids, Tokenizer, leads


class Pieces(Tokenizer):
    """A SentencePiece model; the special tokens it lacks follow its own pieces.

    Models trained here round-trip any text but for U+2581, which SentencePiece reads as a space.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, specials: Sequence[str] = ()) -> None:
        library = _library()
        try:
            self._processor = library.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"This is no SentencePiece model: {error}.") from None
        self._model = model
        self._asked = tuple(specials)
        size = self._processor.get_piece_size()
        own = {END: self._processor.eos_id(), PAD: self._processor.pad_id()}
        ids = {name: own[name] for name in specials if own.get(name, -1) >= 0}
        self._added = [name for name in specials if name not in ids]
        ids |= {name: size + i for i, name in enumerate(self._added)}
        self.vocab_size = size + len(self._added)
        self.end_id, self.pad_id, self.unk_id = ids.get(END), ids.get(PAD), self._processor.unk_id()
        self._counts = np.array([self._stands_for(i) for i in range(size)], dtype=np.int64)

    def _stands_for(self, id: int) -> int:
        piece = self._processor.id_to_piece(id)
        if self._processor.is_byte(id):
            return int(leads(np.array([int(piece[3:5], 16)], dtype=np.uint8))[0])
        return 0 if self._processor.is_control(id) else len(piece)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = ()) -> Pieces:
        """A unigram model with byte fallback that changes no text. Raises UserError for an impossible `vocab_size`."""
        library = _library()
        model = io.BytesIO()
        lines = (line for text in texts for line in text.split("\n") if line)
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=_short(lines),
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
        ids, counts = [], []
        for line, found in zip(lines, self._processor.encode(lines), strict=True):
            some = np.array(found, dtype=np.int64)
            stands = self._counts[some]
            if some.size and (off := len(line) - int(stands.sum())):
                # A loaded model may add a space or merge some: its first pieces answer for that.
                before = np.cumsum(stands) + min(off, 0)
                stands = np.diff(np.maximum(before, 0), prepend=0)
                stands[0] += max(off, 0)
            ids.append(some)
            counts.append(stands)
        return np.concatenate(ids or [_NONE]), np.concatenate(counts or [_NONE])

    def encode_sampled(self, text: str, *, alpha: float, seed: int) -> Ids:
        """A segmentation drawn with probability proportional to p(segmentation)^alpha, always the same for a `seed`."""
        # The library draws from a generator of its own; seeding it right before makes the draw a function of `seed`.
        _library().set_random_generator_seed(seed & 0xFFFFFFFF)
        drawn = self._processor.encode(text, enable_sampling=True, alpha=alpha, nbest_size=-1)
        return np.array(drawn, dtype=np.int64)

    def redraw(self, ids: np.ndarray, alpha: float, seed: int) -> Ids:
        """Another segmentation of the text of `ids`, with the end token where there was one."""
        drawn = self.encode_sampled(self.decode(ids), alpha=alpha, seed=seed)
        ended = self.end_id is not None and self.end_id in ids
        return np.concatenate([drawn, ids[-1:]]) if ended else drawn

    def decode(self, ids: Collection[SupportsIndex]) -> str:
        return self._processor.decode(self._content(ids).tolist())

    def token_text(self, id: int) -> str:
        size = self._processor.get_piece_size()
        return self._added[id - size] if id >= size else self._processor.id_to_piece(id).replace("\u2581", " ")

    def token_bytes(self, id: int) -> bytes:
        if id < self._processor.get_piece_size() and self._processor.is_byte(id):
            return bytes([int(self._processor.id_to_piece(id)[3:5], 16)])
        return self.token_text(id).encode()

    def to_dict(self) -> dict[str, Any]:
        """The pieces are there to be read; the model is what counts."""
        pieces = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        model = base64.b64encode(self._model).decode()
        return {"kind": self.kind, "version": 1, "specials": list(self._asked), "pieces": pieces, "model": model}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Pieces:
        """From `to_dict`."""
        return cls(base64.b64decode(saved["model"]), saved["specials"])


_NONE = np.zeros(0, dtype=np.int64)
_SENTENCE = 1000  # characters; the trainer leaves out sentences of more than 4192 bytes


def _short(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        for start in range(0, len(line), _SENTENCE):
            yield line[start : start + _SENTENCE]


def _library() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError("SentencePiece is an extra: pip install 'textdiffusion[sentencepiece]'.") from None
    return sentencepiece


def _lines(text: str) -> list[str]:
    """Lines with their line breaks; str.splitlines knows other breaks too."""
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])
