"""Learns the configured tokenizer from the training part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..config import TextConfig
from ..documents import unit_size
from ..sources import Chunk
from . import subwords
from .base import END, PAD, UNK, Bytes, Characters, Tokenizer, code_points
from .loading import load_any
from .sentencepiece import SentencePiece

DEFAULT_VOCAB_SIZE = 4096  # of learned subwords


class TokenizerLearner:
    """Observes all units once, then makes the tokenizer from those in the training part.

    The end of the training part is known only after that, so the first position of each character is recorded.
    """

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self._position = 0
        self._seen = np.zeros(0x110000, dtype=bool)
        self._first_position: dict[str, int] = {}

    def observe(self, unit: Chunk) -> None:
        """Record the characters of the next unit."""
        if self.config.tokenizer not in ("characters", "wordpiece"):
            return
        text = unit.all_text
        points = code_points(text)
        new = points[~self._seen[points]]
        for character in map(chr, np.unique(new)):
            offset = text.index(character) if self.config.layout == "stream" else 0
            self._first_position[character] = self._position + offset
        self._seen[new] = True
        self._position += unit_size(unit, self.config)

    def learn(self, texts: Iterator[str], end: int) -> Tokenizer:
        """The tokenizer; `texts` are those before position `end`. Raises UserError if it cannot be made."""
        config = self.config
        specials = () if config.layout == "stream" else (END, PAD)
        vocab_size = config.vocab_size or DEFAULT_VOCAB_SIZE
        characters = [character for character, first in self._first_position.items() if first < end]
        match config.tokenizer:
            case "characters":
                return Characters(characters, specials + ((UNK,) if config.unk else ()))
            case "bytes":
                return Bytes(specials)
            case "words":
                return subwords.train_words(texts, config.vocab_size, specials, unk=config.unk)
            case "bpe":
                return subwords.train_bpe(texts, vocab_size, specials)
            case "wordpiece":
                return subwords.train_wordpiece(texts, vocab_size, specials, characters)
            case "sentencepiece":
                return SentencePiece.train(texts, vocab_size, specials)
            case "file":
                return load_any(Path(config.tokenizer_path), specials)


def learn_from(texts: Sequence[str], config: TextConfig) -> Tokenizer:
    """The configured tokenizer, learned from these texts."""
    learner = TokenizerLearner(config)
    for number, text in enumerate(texts):
        learner.observe(Chunk(text, document=number, file=0, bytes_read=0))
    return learner.learn(iter(texts), sum(unit_size(Chunk(text, 0, 0, 0), config) for text in texts))
