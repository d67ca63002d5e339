"""Learns the configured tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..config import TextConfig
from ..sources import Chunk
from . import subwords
from .base import END, PAD, Bytes, Characters, Tokenizer, code_points, well_formed
from .loading import load_any
from .sentencepiece import SentencePiece

DEFAULT_VOCAB_SIZE = 4096  # of learned subwords


class TokenizerLearner:
    """Observes all text once, then learns the tokenizer.

    Words and subwords come from the training part, but characters from all parts: which characters a text has says
    nothing of its content, and a text must not be refused for one.
    """

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self._seen = np.zeros(0x110000, dtype=bool)

    @property
    def needs_characters(self) -> bool:
        """Whether the tokenizer depends on what is observed."""
        return self.config.tokenizer in ("characters", "wordpiece", "sentencepiece")

    def observe(self, unit: Chunk) -> None:
        """Record the characters of the next unit."""
        if self.needs_characters:
            self._seen[code_points(well_formed(unit.all_text))] = True

    def learn(self, texts: Iterator[str]) -> Tokenizer:
        """The tokenizer; `texts` are those of the training part. Raises UserError if it cannot be made."""
        config = self.config
        specials = () if config.layout == "stream" else (END, PAD)
        characters = list(map(chr, np.flatnonzero(self._seen)))
        # With thousands of characters, as in Chinese, each needs pieces of its own before any are merged.
        vocab_size = config.vocab_size or max(DEFAULT_VOCAB_SIZE, 2 * len(characters) + 1024)
        match config.tokenizer:
            case "characters":
                return Characters(characters, specials)
            case "bytes":
                return Bytes(specials)
            case "words":
                return subwords.train_words(texts, config.vocab_size, specials)
            case "bpe":
                return subwords.train_bpe(texts, vocab_size, specials)
            case "wordpiece":
                return subwords.train_wordpiece(texts, vocab_size, specials, characters)
            case "sentencepiece":
                return SentencePiece.train(texts, vocab_size, specials)
            case "file":
                return load_any(Path(config.tokenizer_path), specials)
            case "auto":
                raise ValueError("the tokenizer is not chosen yet (see data.choices)")


def learn_from(texts: Sequence[str], config: TextConfig) -> Tokenizer:
    """The configured tokenizer, learned from these texts."""
    learner = TokenizerLearner(config)
    for number, text in enumerate(texts):
        learner.observe(Chunk(text, document=number, file=0, bytes_read=0))
    return learner.learn(iter(texts))
